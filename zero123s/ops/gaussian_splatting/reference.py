"""Plain-torch blending of 2D Gaussians: the definition that faster backends are tested against."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zero123s.ops.gaussian_splatting.projection import MIN_ALPHA, ScreenGaussians

MAX_ALPHA = 0.99
"""Largest opacity of one Gaussian at a pixel, so that what lies behind still gets gradients (3DGS)."""
MIN_TRANSMITTANCE = 1e-4
"""Light left below which nothing further behind counts (3DGS)."""
PAIRS_AT_ONCE = 1 << 24
"""Pixel-Gaussian pairs that are held in memory at once."""


def blend(
    gaussians: ScreenGaussians, opacities: Tensor, values: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Blend every view front to back; see `zero123s.ops.gaussian_splatting.blend`.

    Args:
        gaussians: N Gaussians in B views.
        opacities: N, in [0, 1].
        values: B N C, what is blended.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        The blended values over black, B H W C, and the opacity of every pixel, B H W 1.
    """
    views = [
        _blend_view(*view, opacities, height, width)
        for view in zip(gaussians.means, gaussians.conics, gaussians.depths, gaussians.visible, values, strict=True)
    ]
    shape = (len(views), height, width)
    summed = torch.stack([v[0] for v in views]).reshape(*shape, values.shape[-1])
    return summed, torch.stack([v[1] for v in views]).reshape(*shape, 1)


def _blend_view(
    means: Tensor,
    conics: Tensor,
    depths: Tensor,
    visible: Tensor,
    values: Tensor,
    opacities: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    chosen = visible.nonzero()[:, 0]
    order = chosen[torch.sort(depths[chosen].detach(), stable=True).indices]
    v, u = torch.meshgrid(*(torch.arange(n, device=means.device) + 0.5 for n in (height, width)), indexing="ij")
    pixels = torch.stack([u, v], dim=-1).reshape(-1, 2).to(means)
    args = (means[order], conics[order], opacities[order], values[order])
    step = max(1, PAIRS_AT_ONCE // max(1, len(order)))
    parts = [checkpoint(_blend_pixels, part, *args, use_reentrant=False) for part in pixels.split(step)]
    summed, covered = zip(*parts, strict=True)
    return torch.cat(summed), torch.cat(covered)


def _blend_pixels(
    pixels: Tensor, means: Tensor, conics: Tensor, opacities: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weighted sums P C and the opacity P of pixels; the Gaussians come nearest first."""
    dx, dy = (pixels[:, None] - means[None]).unbind(-1)
    xx, xy, yy = conics.unbind(-1)
    power = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alphas = (opacities * torch.exp(-power)).clamp_max(MAX_ALPHA)
    alphas = torch.where(alphas >= MIN_ALPHA, alphas, torch.zeros_like(alphas))
    passed = torch.cumprod(1 - alphas, dim=1)
    reached = torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
    weights = torch.where(reached >= MIN_TRANSMITTANCE, reached * alphas, torch.zeros_like(alphas))
    return weights @ values, weights.sum(1)
