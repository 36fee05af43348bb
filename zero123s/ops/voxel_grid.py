"""Trilinear interpolation of a dense voxel grid."""

import torch
from jaxtyping import Float
from torch import Tensor


def sample_voxels(grid: Float[Tensor, "C Z Y X"], x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
    """Interpolate a dense grid trilinearly, constant beyond the outermost cell centres.

    Cell i of an axis with n cells has its centre at (i + 0.5) / n, as in `grid_sample(align_corners=False,
    padding_mode="border")`, which unlike this is not differentiable twice in 3D.

    Args:
        grid: C Z Y X, the values of the cells.
        x: N 3, positions (x, y, z) in [0, 1].

    Returns:
        N C, differentiable any number of times in `grid` and `x`.

    Example:
        >>> import torch
        >>> from zero123s.ops.voxel_grid import sample_voxels
        >>> grid = torch.tensor([10.0, 20.0]).view(1, 1, 1, 2)
        >>> sample_voxels(grid, torch.tensor([[0.25, 0.5, 0.5], [0.5, 0.5, 0.5], [1.0, 0.5, 0.5]])).tolist()
        [[10.0], [15.0], [20.0]]
    """
    channels, *shape = grid.shape
    size = torch.tensor(shape[::-1], dtype=x.dtype, device=x.device)
    position = torch.minimum((x * size - 0.5).clamp_min(0), size - 1)
    low = torch.minimum(position.detach().floor(), (size - 2).clamp_min(0)).long()
    fraction = position - low
    rows = grid.reshape(channels, -1).T
    strides = torch.tensor([1, shape[2], shape[1] * shape[2]], device=x.device)
    out = x.new_zeros(x.shape[0], channels)
    for corner in range(8):
        offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=x.device)
        index = torch.minimum(low + offset, size.long() - 1)
        weight = torch.where(offset.bool(), fraction, 1 - fraction).prod(-1, keepdim=True)
        out = out + weight * rows[(index * strides).sum(-1)]
    return out
