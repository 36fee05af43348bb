"""The hash grid encoding in plain torch: works on every device and dtype, differentiable any number of times."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.ops.hash_grid.layout import PRIMES, HashGrid


def corner_indices(cell: Int[Tensor, "N 3"], grid: HashGrid, level: int) -> Int[Tensor, "N 8"]:
    """Return the table rows of a cell's corners; corner k adds bit i of k to axis i."""
    bits = torch.arange(8, device=cell.device)
    offset = torch.stack([bits & 1, (bits >> 1) & 1, (bits >> 2) & 1], dim=-1)
    corner = cell[:, None] + offset
    size, resolution = grid.sizes[level], grid.resolutions[level]
    if grid.dense[level]:
        index = corner[..., 0] + resolution * (corner[..., 1] + resolution * corner[..., 2])
    else:
        # Products stay below 2^63 and only the low 32 bits count, so int64 equals tiny-cuda-nn's uint32.
        index = corner[..., 0] * PRIMES[0] ^ corner[..., 1] * PRIMES[1] ^ corner[..., 2] * PRIMES[2]
        index = index & 0xFFFFFFFF
    return grid.offsets[level] + index % size


def encode_reference(x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], grid: HashGrid) -> Float[Tensor, "N LF"]:
    """Return trilinearly interpolated features of all levels, level-major.

    Args:
        x: positions in [0, 1]; outside they are clamped to the border.
        table: grid.n_entries rows.
        grid: the layout.
    """
    x = x.clamp(0.0, 1.0)
    levels = []
    for level in range(grid.n_levels):
        position = x * grid.scales[level] + 0.5
        cell = position.detach().floor()
        f = position - cell
        rows = corner_indices(cell.long(), grid, level)
        corners = table[rows.reshape(-1)].reshape(*rows.shape, grid.n_features_per_level)
        x_lerp = corners[:, 0::2] * (1 - f[:, None, 0:1]) + corners[:, 1::2] * f[:, None, 0:1]
        y_lerp = x_lerp[:, 0::2] * (1 - f[:, None, 1:2]) + x_lerp[:, 1::2] * f[:, None, 1:2]
        levels.append(y_lerp[:, 0] * (1 - f[:, 2:3]) + y_lerp[:, 1] * f[:, 2:3])
    return torch.cat(levels, dim=-1)
