"""Ray march on the CPU: counts each ray's samples, then writes them; both passes visit the same intervals."""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from zero123s.ops.kernels import launch
from zero123s.ops.ray_marching.reference import intersect_box

_HALF, _ONE = np.float32(0.5), np.float32(1.0)


@njit(inline="always")
def _cell(o, d, t, low, high, resolution):
    return min(max(np.int64((o + t * d - low) / (high - low) * np.float32(resolution)), 0), resolution - 1)


@njit(cache=True, parallel=True)
def _march(rays_o, rays_d, aabb, grid, step, start, enter, leave, first, offsets, write, counts, rays, t_starts):
    nx, ny, nz = grid.shape
    for r in prange(rays_o.shape[0]):
        n = 0
        if leave[r] > enter[r]:
            k = first[r]
            while True:
                t = start[r] + k * step
                middle = t + _HALF * step
                if middle >= leave[r]:
                    break
                x = _cell(rays_o[r, 0], rays_d[r, 0], middle, aabb[0], aabb[3], nx)
                y = _cell(rays_o[r, 1], rays_d[r, 1], middle, aabb[1], aabb[4], ny)
                z = _cell(rays_o[r, 2], rays_d[r, 2], middle, aabb[2], aabb[5], nz)
                if middle >= enter[r] and grid[x, y, z]:
                    if write:
                        rays[offsets[r] + n] = r
                        t_starts[offsets[r] + n] = t
                    n += 1
                k += _ONE
        counts[r] = n


def march(
    rays_o: Tensor, rays_d: Tensor, aabb: Tensor, binaries: Tensor, step_size: float, start: Tensor, far: float
) -> tuple[Tensor, Tensor]:
    """March float32 CPU rays as `reference.march` does."""
    enter, leave = intersect_box(rays_o, rays_d, aabb)
    enter, leave = torch.maximum(enter, start), leave.clamp(max=far)
    first = torch.ceil((enter - start) / step_size - 0.5).clamp(min=0)
    inputs = (rays_o, rays_d, aabb, binaries, np.float32(step_size), start, enter, leave, first)
    counts = torch.zeros(rays_o.shape[0], dtype=torch.int64)
    launch(_march, *inputs, counts, False, counts, np.empty(0, np.int64), np.empty(0, np.float32))
    offsets = counts.cumsum(0) - counts
    total = int(counts.sum())
    rays, t_starts = torch.empty(total, dtype=torch.int64), torch.empty(total)
    launch(_march, *inputs, offsets, True, counts, rays, t_starts)
    return rays, t_starts
