"""DDIM's equation (Song et al. 2021, eq. 12) upwards: from rendered latents to the noised ones that would be denoised
to them.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""Noise prediction of latents at a timestep (one row)."""


def signal_share(alphas_cumprod: Float[Tensor, "T"], t: int) -> Float[Tensor, ""]:
    """Return a_t; 1 at t = -1, below the schedule's first level, where there is no noise yet."""
    return alphas_cumprod[t] if t >= 0 else torch.ones_like(alphas_cumprod[0])


def denoised(
    noised: Float[Tensor, "B C h w"], noise_pred: Float[Tensor, "B C h w"], signal: Float[Tensor, "..."]
) -> Float[Tensor, "B C h w"]:
    """Return x_0 = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t)."""
    return (noised - (1 - signal).sqrt() * noise_pred) / signal.sqrt()


def invert(
    latents: Float[Tensor, "1 C h w"],
    levels: list[int],
    alphas_cumprod: Float[Tensor, "T"],
    predict: Predict,
    eta: float = 0.0,
    noise: Float[Tensor, "S C h w"] | None = None,
) -> Float[Tensor, "1 C h w"]:
    """Return the latents taken up through `levels`.

    Args:
        latents: 1 C h w, at `levels[0]`.
        levels: timesteps in rising order; -1 = without noise, where the network is evaluated at t = 0.
        alphas_cumprod: T, the noise schedule.
        predict: the denoiser.
        eta: share of DDPM's noise that every step adds.
        noise: S C h w, that noise; only read where `eta` is above 0.
    """
    x = latents
    for step, (now, after) in enumerate(pairwise(levels)):
        predicted = predict(x, torch.tensor([max(now, 0)], device=x.device)).to(x)
        a, b = (signal_share(alphas_cumprod, t) for t in (now, after))
        x = b.sqrt() * denoised(x, predicted, a) + (1 - b).sqrt() * predicted
        if eta > 0 and noise is not None:
            variance = ((1 - a) / (1 - b) * (1 - b / a)).clamp_min(0)  # DDPM's, of the step back from `after` to `now`
            x = x + eta * variance.sqrt() * noise[step]
    return x
