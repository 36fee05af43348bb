"""Ray march on the CPU: counts each ray's samples, then writes them; both passes visit the same intervals."""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from zero123s.ops.kernels import launch
from zero123s.ops.ray_marching.reference import intersect_box

_HALF, _ONE, _FAR = np.float32(0.5), np.float32(1.0), np.float32(1e30)
_SHIFT = 2
"""Blocks of 2^2 cells per axis are skipped as a whole when all of them are empty."""


@njit
def _cell(o, d, t, resolution):
    return min(max(np.int64(o + t * d), 0), resolution - 1)


@njit
def _exit(o, inverse_d, cell, shift):
    """Return where a ray leaves, along one axis, the block of 2^shift cells that holds `cell`."""
    if inverse_d == 0:  # the ray is parallel to the faces
        return _FAR
    return (np.float32(((cell >> shift) + (inverse_d > 0)) << shift) - o) * inverse_d


@njit(cache=True, nogil=True, error_model="numpy")
def _march(
    part,
    n_parts,
    rays_o,
    rays_d,
    inverse_d,
    grid,
    coarse,
    step,
    start,
    enter,
    leave,
    first,
    offsets,
    write,
    counts,
    rays,
    t_starts,
):
    """Visit the intervals of each ray; `rays_o` and `rays_d` are in cells."""
    nx, ny, nz = grid.shape
    for r in range(part, rays_o.shape[0], n_parts):
        n, k = 0, first[r]
        ox, oy, oz = rays_o[r]
        dx, dy, dz = rays_d[r]
        ix, iy, iz = inverse_d[r]
        while leave[r] > enter[r]:
            t = start[r] + k * step
            middle = t + _HALF * step
            if middle >= leave[r]:
                break
            x, y, z = _cell(ox, dx, middle, nx), _cell(oy, dy, middle, ny), _cell(oz, dz, middle, nz)
            k += _ONE
            if grid[x, y, z]:
                if middle >= enter[r]:
                    if write:
                        rays[offsets[r] + n] = r
                        t_starts[offsets[r] + n] = t
                    n += 1
            else:
                shift = 0 if coarse[x >> _SHIFT, y >> _SHIFT, z >> _SHIFT] else _SHIFT
                end = min(_exit(ox, ix, x, shift), _exit(oy, iy, y, shift), _exit(oz, iz, z, shift))
                if end > middle:
                    k += np.floor((end - middle) / step)
        counts[r] = n


@njit(cache=True, nogil=True)
def _positions(part, n_parts, index, rays, t_starts, t_ends, rays_o, rays_d, out):
    size = (index.shape[0] + n_parts - 1) // n_parts
    for i in range(part * size, min(index.shape[0], (part + 1) * size)):
        r = rays[index[i]]
        middle = _HALF * (t_starts[index[i]] + t_ends[index[i]])
        for axis in range(3):
            out[axis, i] = rays_o[r, axis] + middle * rays_d[r, axis]


def march(
    rays_o: Tensor, rays_d: Tensor, aabb: Tensor, binaries: Tensor, step_size: float, start: Tensor, far: float
) -> tuple[Tensor, Tensor]:
    """March float32 CPU rays as `reference.march` does."""
    enter, leave = intersect_box(rays_o, rays_d, aabb)
    enter, leave = torch.maximum(enter, start), leave.clamp(max=far)
    first = torch.ceil((enter - start) / step_size - 0.5).clamp(min=0)
    cells = torch.tensor(binaries.shape) / (aabb[3:] - aabb[:3])
    coarse = F.max_pool3d(binaries[None].float(), 2**_SHIFT, ceil_mode=True)[0] > 0
    step_in_cells = rays_d * cells
    inverse = torch.where(step_in_cells == 0, 0.0, 1 / step_in_cells)
    inputs = ((rays_o - aabb[:3]) * cells, step_in_cells, inverse, binaries, coarse)
    bounds = (np.float32(step_size), start, enter, leave, first)
    counts = torch.zeros(rays_o.shape[0], dtype=torch.int64)
    launch(_march, *inputs, *bounds, counts, False, counts, np.empty(0, np.int64), np.empty(0, np.float32))
    offsets = counts.cumsum(0) - counts
    total = int(counts.sum())
    rays, t_starts = torch.empty(total, dtype=torch.int64), torch.empty(total)
    launch(_march, *inputs, *bounds, offsets, True, counts, rays, t_starts)
    return rays, t_starts


def positions(index: Tensor, rays: Tensor, t_starts: Tensor, t_ends: Tensor, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """Return the middles of the samples at `index`, stored axis by axis."""
    out = torch.empty(3, len(index))
    launch(_positions, index, rays, t_starts, t_ends, rays_o, rays_d, out)
    return out.t()
