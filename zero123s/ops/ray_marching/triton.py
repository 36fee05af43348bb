"""Ray march on CUDA in Triton: one program per ray tests its intervals side by side, first to count, then to write.

Empty space is not skipped: the flags fit into the L1 cache, and 512 tests of a ray take 16 rounds of a warp.
"""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
import torch
import triton
import triton.language as tl
from torch import Tensor

from zero123s.ops.gpu_kernels import blocks, launch

_STEPS = 128
"""Intervals of a ray that are tested together."""
_BLOCK = 256


@triton.jit
def _cell(rays_o, rays_d, aabb, middle, axis: tl.constexpr, resolution):
    """Return the cell along one axis that holds the ray's points; the same roundings as the reference's."""
    low, high = tl.load(aabb + axis), tl.load(aabb + 3 + axis)
    x = tl.load(rays_o + axis) + middle * tl.load(rays_d + axis)
    # Clamped before the conversion: the point of an interval outside the box may not fit an integer.
    cell = tl.div_rn(x - low, high - low + tl.zeros_like(x)) * resolution
    return tl.minimum(tl.maximum(cell, 0.0), resolution - 1.0).to(tl.int32)


@triton.jit
def _crossings(rays_o, rays_d, aabb, axis: tl.constexpr):
    """Return where a ray enters and leaves the box's extent along one axis, as `reference.intersect_box` does."""
    o, d = tl.load(rays_o + axis), tl.load(rays_d + axis)
    low, high = tl.div_rn(tl.load(aabb + axis) - o, d), tl.div_rn(tl.load(aabb + 3 + axis) - o, d)
    # A direction of zero on the face itself gives 0 / 0.
    on_face = ~((low <= high) | (low >= high))
    near, far = tl.minimum(low, high), tl.maximum(low, high)
    return tl.where(on_face, -float("inf"), near), tl.where(on_face, float("inf"), far)


@triton.jit(do_not_specialize=["nx", "ny", "nz"])
def _march(
    rays_o,
    rays_d,
    aabb,
    grid,
    start,
    offsets,
    counts,
    rays,
    t_starts,
    step,
    end,
    nx,
    ny,
    nz,
    WRITE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Count the intervals of a ray whose middles are in occupied cells, or write them behind `offsets`."""
    r = tl.program_id(0).to(tl.int64)
    t0, n, k = tl.load(start + r), tl.zeros((), tl.int32), tl.arange(0, STEPS)
    near_x, far_x = _crossings(rays_o + 3 * r, rays_d + 3 * r, aabb, 0)
    near_y, far_y = _crossings(rays_o + 3 * r, rays_d + 3 * r, aabb, 1)
    near_z, far_z = _crossings(rays_o + 3 * r, rays_d + 3 * r, aabb, 2)
    near = tl.maximum(tl.maximum(tl.maximum(near_x, near_y), near_z), t0)
    far = tl.minimum(tl.minimum(tl.minimum(far_x, far_y), far_z), end)
    k0 = tl.maximum(tl.ceil((near - t0) / step - 1.0), 0.0)  # or one before the first, whose middle is tested anyway
    # Rays that miss the box, and those without a start, test nothing.
    n_steps = tl.where((far > near) & (t0 < end), tl.ceil((far - t0) / step - k0) + 2.0, 0.0).to(tl.int32)
    for base in range(0, n_steps, STEPS):
        t = t0 + (k0 + (base + k).to(tl.float32)) * step
        middle = t + 0.5 * step
        inside = (middle >= near) & (middle < far)
        x = _cell(rays_o + 3 * r, rays_d + 3 * r, aabb, middle, 0, nx)
        y = _cell(rays_o + 3 * r, rays_d + 3 * r, aabb, middle, 1, ny)
        z = _cell(rays_o + 3 * r, rays_d + 3 * r, aabb, middle, 2, nz)
        found = (tl.load(grid + (x * ny + y) * nz + z, mask=inside, other=0) != 0).to(tl.int32)
        if WRITE:
            at = tl.load(offsets + r) + n + tl.cumsum(found, 0) - found
            tl.store(rays + at, r + tl.zeros_like(at), mask=found != 0)
            tl.store(t_starts + at, t, mask=found != 0)
        n += tl.sum(found, 0)
    if not WRITE:
        tl.store(counts + r, n.to(tl.int64))


@triton.jit(do_not_specialize=["n_samples"])
def _positions(
    index, rays, t_starts, t_ends, rays_o, rays_d, out, n_samples, INDEXED: tl.constexpr, BLOCK: tl.constexpr
):
    """Write the middles of samples, axis by axis."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < n_samples
    s = tl.load(index + n, mask=inside, other=0) if INDEXED else n
    r = tl.load(rays + s, mask=inside, other=0)
    middle = 0.5 * (tl.load(t_starts + s, mask=inside, other=0.0) + tl.load(t_ends + s, mask=inside, other=0.0))
    for axis in tl.static_range(3):
        o = tl.load(rays_o + 3 * r + axis, mask=inside, other=0.0)
        d = tl.load(rays_d + 3 * r + axis, mask=inside, other=0.0)
        tl.store(out + axis * n_samples.to(tl.int64) + n, o + middle * d, mask=inside)


def march(
    rays_o: Tensor, rays_d: Tensor, aabb: Tensor, binaries: Tensor, step_size: float, start: Tensor, far: float
) -> tuple[Tensor, Tensor]:
    """March float32 rays as `reference.march` does; waits for the GPU once, to learn the number of samples."""
    n_rays = len(start)
    counts = torch.empty(n_rays, dtype=torch.int64, device=start.device)
    inputs = (*(t.contiguous() for t in (rays_o, rays_d, aabb)), binaries.contiguous().view(torch.uint8), start)
    constants = (step_size, far, *binaries.shape)
    launch(_march, (n_rays,), *inputs, counts, counts, counts, start, *constants, False, _STEPS, num_warps=1)
    ends = counts.cumsum(0)
    total = int(ends[-1]) if n_rays else 0
    rays, t_starts = counts.new_empty(total), start.new_empty(total)
    outputs = (ends - counts, counts, rays, t_starts)
    launch(_march, (n_rays,), *inputs, *outputs, *constants, True, _STEPS, num_warps=1)
    return rays, t_starts


def positions(
    index: Tensor | None, rays: Tensor, t_starts: Tensor, t_ends: Tensor, rays_o: Tensor, rays_d: Tensor
) -> Tensor:
    """Return the middles of all samples, or of those at `index`, stored axis by axis."""
    n = len(rays if index is None else index)
    out = rays_o.new_empty(3, n)
    samples = (rays if index is None else index.contiguous(), *(t.contiguous() for t in (rays, t_starts, t_ends)))
    arguments = (*samples, rays_o.contiguous(), rays_d.contiguous(), out, n)
    launch(_positions, (blocks(n, _BLOCK),), *arguments, index is not None, _BLOCK)
    return out.t()
