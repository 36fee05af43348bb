"""Ray march on the CPU: marks each ray's occupied intervals, then writes those that are marked."""

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
def _march(part, n_parts, rays_o, rays_d, inverse_d, grid, coarse, step, start, enter, leave, first, occupied, counts):
    """Mark the occupied intervals of each ray, one bit each from its first one on; `rays_o`, `rays_d` are in cells."""
    nx, ny, nz = grid.shape
    for r in range(part, rays_o.shape[0], n_parts):
        n, k = 0, first[r]
        ox, oy, oz = rays_o[r]
        dx, dy, dz = rays_d[r]
        ix, iy, iz = inverse_d[r]
        while leave[r] > enter[r]:
            middle = start[r] + k * step + _HALF * step
            if middle >= leave[r]:
                break
            x, y, z = _cell(ox, dx, middle, nx), _cell(oy, dy, middle, ny), _cell(oz, dz, middle, nz)
            interval = np.int64(k - first[r])
            k += _ONE
            if grid[x, y, z]:
                if middle >= enter[r]:
                    occupied[r, interval >> 6] |= np.uint64(1) << np.uint64(interval & 63)
                    n += 1
            else:
                shift = 0 if coarse[x >> _SHIFT, y >> _SHIFT, z >> _SHIFT] else _SHIFT
                end = min(_exit(ox, ix, x, shift), _exit(oy, iy, y, shift), _exit(oz, iz, z, shift))
                if end > middle:
                    k += np.floor((end - middle) / step)
        counts[r] = n


@njit(cache=True, nogil=True)
def _write_samples(part, n_parts, occupied, offsets, step, start, first, rays, t_starts):
    """Write the marked intervals of each ray."""
    for r in range(part, occupied.shape[0], n_parts):
        n = offsets[r]
        for word in range(occupied.shape[1]):
            bits, k = occupied[r, word], np.float32(first[r] + np.float32(64 * word))
            while bits:
                if bits & np.uint64(1):
                    rays[n] = r
                    t_starts[n] = start[r] + k * step
                    n += 1
                bits >>= np.uint64(1)
                k += _ONE


@njit(cache=True, nogil=True)
def _positions(part, n_parts, index, rays, t_starts, t_ends, rays_o, rays_d, out):
    size = (index.shape[0] + n_parts - 1) // n_parts
    for i in range(part * size, min(index.shape[0], (part + 1) * size)):
        r = rays[index[i]]
        middle = _HALF * (t_starts[index[i]] + t_ends[index[i]])
        for axis in range(3):
            out[axis, i] = rays_o[r, axis] + middle * rays_d[r, axis]


def _occupied_box(aabb: Tensor, binaries: Tensor) -> Tensor:
    """Return the box of the occupied cells and one cell around them, inside the grid's; of no size if there are none."""
    occupied = binaries.nonzero()
    if len(occupied) == 0:
        return aabb[:3].repeat(2)
    edge = (aabb[3:] - aabb[:3]) / torch.tensor(binaries.shape)
    low = aabb[:3] + (occupied.amin(0) - 1) * edge
    high = aabb[:3] + (occupied.amax(0) + 2) * edge
    return torch.cat([torch.maximum(aabb[:3], low), torch.minimum(aabb[3:], high)])


def march(
    rays_o: Tensor, rays_d: Tensor, aabb: Tensor, binaries: Tensor, step_size: float, start: Tensor, far: float
) -> tuple[Tensor, Tensor]:
    """March float32 CPU rays as `reference.march` does."""
    enter, leave = intersect_box(rays_o, rays_d, _occupied_box(aabb, binaries))
    enter, leave = torch.maximum(enter, start), leave.clamp(max=far)
    first = torch.ceil((enter - start) / step_size - 0.5).clamp(min=0)
    cells = torch.tensor(binaries.shape) / (aabb[3:] - aabb[:3])
    coarse = F.max_pool3d(binaries[None].float(), 2**_SHIFT, ceil_mode=True)[0] > 0
    step_in_cells = rays_d * cells
    inverse = torch.where(step_in_cells == 0, 0.0, 1 / step_in_cells)
    inputs = ((rays_o - aabb[:3]) * cells, step_in_cells, inverse, binaries, coarse)
    lengths = torch.where(leave > enter, (leave - start) / step_size - first, 0.0)
    n_intervals = int(lengths.max().ceil()) + 1 if len(lengths) else 0
    occupied = torch.zeros(len(first), -(-n_intervals // 64), dtype=torch.uint64)
    counts = torch.zeros(len(first), dtype=torch.int64)
    step = np.float32(step_size)
    launch(_march, *inputs, step, start, enter, leave, first, occupied, counts)
    total = int(counts.sum())
    rays, t_starts = torch.empty(total, dtype=torch.int64), torch.empty(total)
    launch(_write_samples, occupied, counts.cumsum(0) - counts, step, start, first, rays, t_starts)
    return rays, t_starts


def positions(index: Tensor, rays: Tensor, t_starts: Tensor, t_ends: Tensor, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """Return the middles of the samples at `index`, stored axis by axis."""
    out = torch.empty(3, len(index))
    launch(_positions, index, rays, t_starts, t_ends, rays_o, rays_d, out)
    return out.t()
