"""Blending of 2D Gaussians by gsplat's kernels on CUDA (Ye et al. 2024)."""

# gsplat has no types, and is seldom there.
# pyright: reportCallIssue=false
import torch
from gsplat import isect_offset_encode, isect_tiles, rasterize_to_pixels
from torch import Tensor

from zero123s.ops.gaussian_splatting.projection import ScreenGaussians

TILE = 16


def blend(
    gaussians: ScreenGaussians, opacities: Tensor, values: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Blend float32 CUDA Gaussians; gsplat leaves out the Gaussian that takes the last 1e-4 of the light."""
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    radii = gaussians.half_extents.ceil().int()
    _, pairs, flat = isect_tiles(gaussians.means, radii, gaussians.depths, TILE, tiles_x, tiles_y)
    offsets = isect_offset_encode(pairs, len(values), tiles_x, tiles_y)
    per_view = opacities.expand(len(values), -1)
    summed, covered = rasterize_to_pixels(
        gaussians.means, gaussians.conics, values, per_view, width, height, TILE, offsets, flat
    )
    return summed, torch.nan_to_num(covered)
