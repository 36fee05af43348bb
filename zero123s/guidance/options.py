"""What several guidances offer researchers besides plain SDS: how noise levels are chosen, how gradients are scaled."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.config.options import option


@dataclass
class DistillationConfig:
    """Noise levels, weighting and scale of the gradient."""

    min_step_percent: Any = option(0.02, low=0.0, high=1.0, schedule=True)
    """Smallest noise level as a share of the schedule; number or schedule."""
    max_step_percent: Any = option(0.98, low=0.0, high=1.0, schedule=True)
    """Largest noise level; number or schedule."""
    timesteps: str = option("uniform", choices=("uniform", "linear", "sqrt"))
    """"uniform": drawn anew for every view; "linear" and "sqrt": from the largest to the smallest over anneal_steps."""
    anneal_steps: int = option(10000, low=1)
    """Steps over which "linear" and "sqrt" come down."""
    weighting: str = option("sds", choices=("sds", "uniform", "fantasia3d"))
    """w(t): 1 - a_t, 1, or sqrt(a_t) (1 - a_t)."""
    grad_normalize: bool = False
    """Divide every view's gradient by its norm, as classifier-free scales of 100 need at changing noise levels."""
    grad_clip: Any = option(None, low=0.0, schedule=True)
    """Largest absolute latent gradient; number, schedule, or None."""


@dataclass
class VariationalConfig(DistillationConfig):
    """What the gradient is measured from: the noise that was added (SDS), or a network that learns (VSD)."""

    variant: str = option("sds", choices=("sds", "vsd"))
    """"vsd" compares with a low-rank copy of the denoiser that learns the present renderings, instead of with noise."""
    lora_rank: int = option(4, low=1)
    """Rank of that copy's adapters."""
    lora_lr: float = option(1e-4, above=0.0)
    """Its learning rate."""


def annealed_timesteps(
    batch: int, min_percent: float, max_percent: float, n_timesteps: int, step: int, cfg: DistillationConfig
) -> Int[Tensor, "B"]:
    """Return one noise level for all views, falling with the step: linearly, or by its root (HiFA, eq. 8)."""
    done = min(1.0, step / cfg.anneal_steps)
    share = done if cfg.timesteps == "linear" else done**0.5
    percent = max_percent - (max_percent - min_percent) * share
    return torch.full((batch,), min(n_timesteps - 1, round(n_timesteps * percent)))


def step_weight(alphas_cumprod_t: Float[Tensor, "B"], weighting: str) -> Float[Tensor, "B"]:
    """Return w(t) of a weighting's name."""
    if weighting == "uniform":
        return torch.ones_like(alphas_cumprod_t)
    weight = 1 - alphas_cumprod_t
    return alphas_cumprod_t.sqrt() * weight if weighting == "fantasia3d" else weight


def distillation_gradient(
    noise_pred: Float[Tensor, "B C h w"],
    baseline: Float[Tensor, "B C h w"],
    alphas_cumprod_t: Float[Tensor, "B"],
    cfg: DistillationConfig,
    clip: float | None = None,
) -> Float[Tensor, "B C h w"]:
    """Return w(t) (noise_pred - baseline), non-finite entries zeroed, normalised and clamped as `cfg` says.

    The baseline is the noise itself in SDS (DreamFusion, eq. 3), and another network's opinion in VSD (ProlificDreamer,
    eq. 7).
    """
    weight = step_weight(alphas_cumprod_t, cfg.weighting)[:, None, None, None]
    grad = torch.nan_to_num(weight * (noise_pred - baseline))
    if cfg.grad_normalize:
        grad = grad / grad.flatten(1).norm(dim=1).clamp_min(1e-8)[:, None, None, None]
    return grad if clip is None else grad.clamp(-clip, clip)
