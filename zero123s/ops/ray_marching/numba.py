"""Ray march on the CPU: marks each ray's occupied intervals, then writes those that are marked."""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from zero123s.ops.kernels import launch

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
def _enter(
    part, n_parts, o, d, box, aabb, cells, start, step, far, cells_o, cells_d, inverse_d, enters, leaves, firsts
):
    """Write rays in cells, the distances at which they enter and leave a box, and their first intervals inside."""
    size = (o.shape[0] + n_parts - 1) // n_parts
    for r in range(part * size, min(o.shape[0], (part + 1) * size)):
        enter, leave = start[r], far
        for axis in range(3):
            t0, t1 = (box[axis] - o[r, axis]) / d[r, axis], (box[3 + axis] - o[r, axis]) / d[r, axis]
            if not (np.isnan(t0) or np.isnan(t1)):  # else the ray lies in a face: it counts as touching from inside
                enter, leave = max(enter, min(t0, t1)), min(leave, max(t0, t1))
            cells_o[r, axis] = (o[r, axis] - aabb[axis]) * cells[axis]
            along = d[r, axis] * cells[axis]
            cells_d[r, axis] = along
            inverse_d[r, axis] = np.float32(0) if along == 0 else _ONE / along
        enters[r], leaves[r] = enter, leave
        firsts[r] = max(np.ceil((enter - start[r]) / step - _HALF), np.float32(0))


@njit
def _numbers_of(r, o, d, inverse_d):
    """Return a ray's origin, direction and inverse direction as nine numbers."""
    return o[r, 0], o[r, 1], o[r, 2], d[r, 0], d[r, 1], d[r, 2], inverse_d[r, 0], inverse_d[r, 1], inverse_d[r, 2]


@njit(error_model="numpy")
def _next_occupied(k, ray, grid, coarse, step, start, enter, leave):
    """Return the number of the next interval from `k` on whose middle is in an occupied cell; -1 = there is none."""
    nx, ny, nz = grid.shape
    ox, oy, oz, dx, dy, dz, ix, iy, iz = ray
    while True:
        middle = start + k * step + _HALF * step
        if not middle < leave:
            return -_ONE
        x, y, z = _cell(ox, dx, middle, nx), _cell(oy, dy, middle, ny), _cell(oz, dz, middle, nz)
        if grid[x, y, z]:
            if middle >= enter:
                return k
        else:
            shift = 0 if coarse[x >> _SHIFT, y >> _SHIFT, z >> _SHIFT] else _SHIFT
            end = min(_exit(ox, ix, x, shift), _exit(oy, iy, y, shift), _exit(oz, iz, z, shift))
            if end > middle:
                k += np.floor((end - middle) / step)
        k += _ONE


@njit(cache=True, nogil=True, error_model="numpy")
def _march(part, n_parts, rays_o, rays_d, inverse_d, grid, coarse, step, start, enter, leave, first, occupied, counts):
    """Mark the occupied intervals of each ray, one bit each from its first one on; `rays_o`, `rays_d` are in cells."""
    for r in range(part, rays_o.shape[0], n_parts):
        ray, ends = _numbers_of(r, rays_o, rays_d, inverse_d), (start[r], enter[r], leave[r])
        k = _next_occupied(first[r], ray, grid, coarse, step, *ends) if leave[r] > enter[r] else -_ONE
        while k >= 0:
            interval = np.int64(k - first[r])
            occupied[r, interval >> 6] |= np.uint64(1) << np.uint64(interval & 63)
            counts[r] += 1
            k = _next_occupied(k + _ONE, ray, grid, coarse, step, *ends)


@njit(cache=True, nogil=True, error_model="numpy")
def _march_on(part, n_parts, rays, block, lines, cells, grid, coarse, step, ends, numbers, found, counts):
    """List the next samples of some rays, `block` of each at most, and move the numbers of their next intervals on.

    `lines` are origins and directions of all rays in the world, `cells` the same and inverse directions in cells.
    `found`: ray, start and middle of each sample, of a part from the place on that its rays could fill.
    """
    size = (rays.shape[0] + n_parts - 1) // n_parts
    n = part * size * block
    for i in range(part * size, min(rays.shape[0], (part + 1) * size)):
        r = rays[i]
        start, enter, leave = ends[0][r], ends[1][r], ends[2][r]
        ray, k = _numbers_of(r, cells[0], cells[1], cells[2]), numbers[r]
        for _ in range(block):
            k = _next_occupied(k, ray, grid, coarse, step, start, enter, leave)
            if k < 0:
                break
            t_start = start + k * step
            middle = _HALF * (t_start + (t_start + step))
            found[0][n], found[1][n] = r, t_start
            for axis in range(3):
                found[2][axis, n] = lines[0][r, axis] + middle * lines[1][r, axis]
            n += 1
            k += _ONE
        numbers[r] = k
    counts[part] = n - part * size * block


@njit(cache=True, nogil=True)
def _absorb(rays, t_starts, alphas, alpha_thre, eps, transmittance, kept_rays, kept_starts, counts, alive, numbers):
    """Let light pass the next samples, in order, and keep the visible ones; returns how many.

    Also returns how many of the rays in `alive` may have more of them, and moves those to its front.
    """
    n, n_alive = 0, 0
    for i in range(rays.shape[0]):
        r = rays[i]
        if transmittance[r] >= eps and alphas[i] >= alpha_thre:
            kept_rays[n], kept_starts[n] = r, t_starts[i]
            counts[r] += 1
            n += 1
        transmittance[r] *= _ONE - alphas[i]
    for i in range(alive.shape[0]):
        r = alive[i]
        if transmittance[r] >= eps and numbers[r] >= 0:
            alive[n_alive] = r
            n_alive += 1
    return n, n_alive


@njit(cache=True, nogil=True)
def _sort_by_ray(rays, t_starts, places, out_rays, out_starts):
    """Put samples to their rays' next places."""
    for i in range(rays.shape[0]):
        r = rays[i]
        out_rays[places[r]], out_starts[places[r]] = r, t_starts[i]
        places[r] += 1


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
    cells, ends, first, coarse = _prepared(rays_o, rays_d, aabb, binaries, step_size, start, far)
    enter, leave = ends[1:]
    lengths = torch.where(leave > enter, (leave - start) / step_size - first, 0.0)
    n_intervals = int(lengths.max().ceil()) + 1 if len(lengths) else 0
    occupied = torch.zeros(len(first), -(-n_intervals // 64), dtype=torch.uint64)
    counts = torch.zeros(len(first), dtype=torch.int64)
    step = np.float32(step_size)
    launch(_march, *cells, binaries, coarse, step, *ends, first, occupied, counts)
    total = int(counts.sum())
    rays, t_starts = torch.empty(total, dtype=torch.int64), torch.empty(total)
    launch(_write_samples, occupied, counts.cumsum(0) - counts, step, start, first, rays, t_starts)
    return rays, t_starts


def _prepared(
    rays_o: Tensor, rays_d: Tensor, aabb: Tensor, binaries: Tensor, step_size: float, start: Tensor, far: float
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor, Tensor]:
    """Return rays in cells; where they start, enter and leave; their first intervals; the blocks with occupied cells."""
    box, cells = _occupied_box(aabb, binaries), torch.tensor(binaries.shape) / (aabb[3:] - aabb[:3])
    coarse = F.max_pool3d(binaries[None].float(), 2**_SHIFT, ceil_mode=True)[0] > 0
    in_cells = tuple(torch.empty(len(start), 3) for _ in range(3))
    enter, leave, first = (torch.empty_like(start) for _ in range(3))
    scalars = np.float32(step_size), np.float32(far)
    launch(_enter, rays_o, rays_d, box, aabb, cells, start, *scalars, *in_cells, enter, leave, first)
    return in_cells, (start, enter, leave), first, coarse


def march_visible(
    rays_o: Tensor,
    rays_d: Tensor,
    aabb: Tensor,
    binaries: Tensor,
    step_size: float,
    start: Tensor,
    far: float,
    alphas_at: Callable[[Tensor], Tensor],
    alpha_thre: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """March only as far as light reaches; returns ray and start of the visible samples, and each ray's number of them."""
    cells, ends, first, coarse = _prepared(rays_o, rays_d, aabb, binaries, step_size, start, far)
    arrays = [_arrays(t) for t in ((rays_o, rays_d), cells, ends)]
    alive = torch.nonzero(ends[2] > ends[1])[:, 0].contiguous()
    transmittance, counts = torch.ones(len(first)), torch.zeros(len(first), dtype=torch.int64)
    step, limits = np.float32(step_size), (np.float32(alpha_thre), np.float32(eps))
    kept, block = [(torch.zeros(0, dtype=torch.int64), torch.zeros(0))], 0
    for block in _blocks():
        if len(alive) == 0:
            break
        rays, t_starts, x = _next_samples(alive, block, arrays, (binaries, coarse, step), first)
        alphas = alphas_at(x).detach().contiguous()
        here = torch.empty_like(rays), torch.empty_like(t_starts)
        state = _arrays((transmittance, *here, counts, alive, first))
        n, n_alive = _absorb(*_arrays((rays, t_starts, alphas)), *limits, *state)
        kept.append((here[0][:n], here[1][:n]))
        alive = alive[:n_alive]
    rays, t_starts = (torch.cat(column) for column in zip(*kept, strict=True))
    out = torch.empty_like(rays), torch.empty_like(t_starts)
    _sort_by_ray(*_arrays((rays, t_starts, counts.cumsum(0) - counts, *out)))
    return *out, counts


def _blocks() -> Iterator[int]:
    """Return how many samples of each ray are evaluated together: the fewer, the fewer behind where light ends."""
    yield from (8, 4, 4, 4, 8, 8)
    while True:
        yield 16


def _next_samples(
    alive: Tensor, block: int, rays: list[tuple], grid: tuple[Tensor, Tensor, np.float32], numbers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ray, start and middle of the next samples of some rays."""
    n_parts = torch.get_num_threads()
    room = -(-len(alive) // n_parts) * block
    found = torch.empty(n_parts * room, dtype=torch.int64), torch.empty(n_parts * room), torch.empty(3, n_parts * room)
    counts = torch.zeros(n_parts, dtype=torch.int64)
    lines, cells, ends = rays
    launch(_march_on, alive, block, lines, cells, *grid, ends, numbers, _arrays(found), counts)
    parts = [slice(p * room, p * room + n) for p, n in enumerate(counts.tolist())]
    ray, t_starts, x = (torch.cat([t[..., part] for part in parts], dim=-1) for t in found)
    return ray, t_starts, x.t()


def _arrays(tensors: Iterable[Tensor]) -> tuple[np.ndarray, ...]:
    """Return tensors as arrays for kernels."""
    return tuple(t.detach().contiguous().numpy() for t in tensors)


def positions(index: Tensor, rays: Tensor, t_starts: Tensor, t_ends: Tensor, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """Return the middles of the samples at `index`, stored axis by axis."""
    out = torch.empty(3, len(index))
    launch(_positions, index, rays, t_starts, t_ends, rays_o, rays_d, out)
    return out.t()
