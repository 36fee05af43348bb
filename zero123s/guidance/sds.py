"""The formulas of score distillation, apart from any network (DreamFusion, eq. 3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sample_timesteps(
    batch_size: int, min_percent: float, max_percent: float, n_timesteps: int, generator: torch.Generator
) -> Int[Tensor, "B"]:
    """Draw t uniformly from {int(T min), ..., int(T max)}, at most T - 1, one per view."""
    low, high = int(n_timesteps * min_percent), int(n_timesteps * max_percent)
    return torch.randint(low, high + 1, (batch_size,), generator=generator).clamp_max(n_timesteps - 1)


def annealed_timesteps(
    batch_size: int, min_percent: float, max_percent: float, n_timesteps: int, progress: float, mode: str
) -> Int[Tensor, "B"]:
    """Return one timestep for all views, falling from T max to T min.

    Args:
        progress: share of the annealing that is done, in [0, 1].
        mode: "linear", or "sqrt" (HiFA, eq. 8).
    """
    share = progress if mode == "linear" else progress**0.5
    percent = max_percent - (max_percent - min_percent) * share
    return torch.full((batch_size,), min(n_timesteps - 1, round(n_timesteps * percent)))


def step_weight(alphas_cumprod_t: Float[Tensor, "B"], weighting: str) -> Float[Tensor, "B"]:
    """Return w(t) by name: "sds" 1 - a_t, "uniform" 1, "fantasia3d" sqrt(a_t) (1 - a_t)."""
    if weighting == "uniform":
        return torch.ones_like(alphas_cumprod_t)
    weight = 1 - alphas_cumprod_t
    return alphas_cumprod_t.sqrt() * weight if weighting == "fantasia3d" else weight


def weighted_gradient(
    residual: Float[Tensor, "B C h w"],
    alphas_cumprod_t: Float[Tensor, "B"],
    weighting: str = "sds",
    normalize: bool = False,
    clip: float | None = None,
) -> Float[Tensor, "B C h w"]:
    """Return w(t) residual, non-finite entries zeroed, every view's gradient divided by its norm, clamped to +-clip."""
    grad = torch.nan_to_num(step_weight(alphas_cumprod_t, weighting)[:, None, None, None] * residual)
    if normalize:
        grad = grad / grad.flatten(1).norm(dim=1).clamp_min(1e-8)[:, None, None, None]
    return grad if clip is None else grad.clamp(-clip, clip)


def sds_loss(latents: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Return a loss whose gradient with respect to `latents` is `grad / B`.

    0.5 * ||z - stop_gradient(z - grad)||^2 / B, so that its value is 0.5 * ||grad||^2 / B.
    """
    target = (latents - grad).detach()
    return 0.5 * (latents - target).square().sum() / latents.shape[0]


def loss_with_gradient(
    images: Float[Tensor, "B H W C"], grad: Float[Tensor, "B H W C"], value: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return a loss of the given value whose gradient with respect to `images` is `grad`, computed beforehand."""
    carrier = (images * grad).sum()
    return carrier - carrier.detach() + value.detach()
