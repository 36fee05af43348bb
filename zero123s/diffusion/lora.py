"""Low-rank adapters on the denoiser (Hu et al. 2021), through peft: fine-tuning that fits on one GPU."""

from types import ModuleType

from diffusers import UNet2DConditionModel
from torch import nn

from zero123s.errors import MissingDependencyError

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
"""The matrices of every transformer block."""


def import_peft() -> ModuleType:
    """Return the module peft; raises MissingDependencyError saying how to install it."""
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError(
            "Low-rank adapters (system.lora_rank, system.guidance.variant=vsd) need peft: pip install 'zero123s[lora]'."
        ) from error
    return peft


def add_lora(unet: UNet2DConditionModel, rank: int, alpha: int) -> None:
    """Add trainable adapters of `rank` to the transformers and freeze everything else; raises MissingDependencyError.

    They start as nothing: the network's output does not change.
    """
    peft = import_peft()
    unet.requires_grad_(False)
    unet.add_adapter(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS)))


def merge_lora(unet: nn.Module) -> None:
    """Add the adapters to the weights they adapt and take them away: an ordinary network again."""
    if getattr(unet, "peft_config", None):
        unet.fuse_lora()  # type: ignore[operator]
        unet.unload_lora()  # type: ignore[operator]
