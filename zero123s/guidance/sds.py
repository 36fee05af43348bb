"""Score Distillation Sampling, apart from any network (DreamFusion, eq. 3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sample_timesteps(
    batch_size: int, min_percent: float, max_percent: float, n_timesteps: int, generator: torch.Generator
) -> Int[Tensor, "B"]:
    """Draw t uniformly from {int(T min), ..., int(T max)}, one per view."""
    low, high = int(n_timesteps * min_percent), int(n_timesteps * max_percent)
    return torch.randint(low, high + 1, (batch_size,), generator=generator)


def sds_loss(latents: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Return a loss whose gradient with respect to `latents` is `grad / B`.

    0.5 * ||z - stop_gradient(z - grad)||^2 / B, so that its value is 0.5 * ||grad||^2 / B.
    """
    target = (latents - grad).detach()
    return 0.5 * (latents - target).square().sum() / latents.shape[0]


def loss_with_gradient(
    images: Float[Tensor, "B H W C"], grad: Float[Tensor, "B H W C"], value: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return a loss of the given value whose gradient with respect to `images` is `grad`, found beforehand."""
    carrier = (images * grad).sum()
    return carrier - carrier.detach() + value.detach()
