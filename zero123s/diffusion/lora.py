"""Low-rank adapters on the denoiser (Hu et al. 2021), through peft: fine-tuning that fits on one GPU."""

from types import ModuleType

from diffusers import UNet2DConditionModel
from torch import nn

from zero123s.errors import MissingDependencyError

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
"""The matrices of every transformer block."""


def import_peft() -> ModuleType:
    """Import the package peft.

    Returns:
        The module.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError(
            "Low-rank adapters (system.lora_rank, system.guidance.variant=vsd) need peft: pip install 'zero123s[lora]'."
        ) from error
    return peft


def add_lora(unet: UNet2DConditionModel, rank: int, alpha: int) -> None:
    """Add trainable adapters to the transformers of a denoiser and freeze everything else.

    They start at zero: the network's output does not change.

    Args:
        unet: the denoiser, changed in place.
        rank: of the adapters.
        alpha: their scale is alpha / rank.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    peft = import_peft()
    unet.requires_grad_(False)
    unet.add_adapter(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS)))


def merge_lora(unet: nn.Module) -> None:
    """Add the adapters to the weights they adapt and remove them.

    Args:
        unet: the denoiser, changed in place; unchanged without adapters.
    """
    if getattr(unet, "peft_config", None):
        unet.fuse_lora()  # type: ignore[operator]
        unet.unload_lora()  # type: ignore[operator]
