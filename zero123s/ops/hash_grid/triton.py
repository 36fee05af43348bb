"""Hash encoding on CUDA in Triton: one program per block of points and level.

Programs start level by level, so that those that run together read the same part of the table. Sums over the levels
(position gradients) are made inside a program instead: no atomic additions, the same result every time. The table
gradient adds atomically, in varying order.
"""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from zero123s.ops.gpu_kernels import blocks, launch
from zero123s.ops.hash_grid import autograd
from zero123s.ops.hash_grid.autograd import Kernels
from zero123s.ops.hash_grid.reference import GradBuffer, Level

_BLOCK = 128
"""Points of a program: one per thread, so that no number has to change its thread for a pair of features to be read as
one.
"""


@triton.jit
def _cell(x, n, inside, scale):
    """Return the cell along one axis and the position inside it."""
    position = tl.load(x + n, mask=inside, other=0.0) * scale + 0.5
    base = tl.floor(position)
    return base.to(tl.int32).to(tl.uint32), position - base


@triton.jit
def _level(levels, level):
    """Return a level's resolution, first row, rows and whether they are found by hashing."""
    at = levels + 4 * level
    resolution, offset, size = tl.load(at), tl.load(at + 1), tl.load(at + 2)
    return resolution.to(tl.uint32), offset, size.to(tl.uint32), tl.load(at + 3)


@triton.jit
def _row(x, y, z, resolution, size, hashed):
    """Return the row inside its level of a grid point; see `reference.corner_rows`."""
    if hashed != 0:
        row = (x ^ (y * 2654435761) ^ (z * 805459861)) & (size - 1)
    else:
        row = (x + resolution * (y + resolution * z)) % size
    return row


@triton.jit
def _weight(CORNER: tl.constexpr, fx, fy, fz, dx, dy, dz, DIRECTIONAL: tl.constexpr):
    """Return a corner's trilinear weight, or its derivative along a direction (dx, dy, dz) in cells."""
    x, sx = (fx, dx) if CORNER & 1 else (1.0 - fx, -dx)
    y, sy = (fy, dy) if CORNER & 2 else (1.0 - fy, -dy)
    z, sz = (fz, dz) if CORNER & 4 else (1.0 - fz, -dz)
    weight = sx * y * z + x * (sy * z + y * sz) if DIRECTIONAL else x * (y * z)
    return weight


@triton.jit
def _direction(v, n, inside, n_points, scale, DIRECTIONAL: tl.constexpr):
    """Return a direction in cells of the level, zeros where there is none."""
    if DIRECTIONAL:
        dx = tl.load(v + n, mask=inside, other=0.0) * scale
        dy = tl.load(v + n_points + n, mask=inside, other=0.0) * scale
        dz = tl.load(v + 2 * n_points + n, mask=inside, other=0.0) * scale
    else:
        dx, dy, dz = 0.0, 0.0, 0.0
    return dx, dy, dz


@triton.jit(do_not_specialize=["n_points"])
def _gather(
    x, v, table, scales, levels, out, n_points, DIRECTIONAL: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr
):
    """Interpolate the table, or differentiate the interpolation along `v`."""
    level = tl.program_id(1)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f, inside = tl.arange(0, F), n < n_points
    scale = tl.load(scales + level)
    resolution, offset, size, hashed = _level(levels, level)
    cx, fx = _cell(x, n, inside, scale)
    cy, fy = _cell(x + n_points, n, inside, scale)
    cz, fz = _cell(x + 2 * n_points, n, inside, scale)
    dx, dy, dz = _direction(v, n, inside, n_points, scale, DIRECTIONAL)
    total = tl.zeros((BLOCK, F), tl.float32)
    for corner in tl.static_range(8):
        row = _row(cx + (corner & 1), cy + (corner >> 1 & 1), cz + (corner >> 2), resolution, size, hashed)
        at = table + (offset + row.to(tl.int64))[:, None] * F + f[None, :]
        value = tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
        total += _weight(corner, fx, fy, fz, dx, dy, dz, DIRECTIONAL)[:, None] * value
    tl.store(out + (level * F + f)[None, :] * n_points.to(tl.int64) + n[:, None], total, mask=inside[:, None])


@triton.jit
def _features_at(features, level, n, inside, n_points, F: tl.constexpr):
    """Return a level's features of points, stored feature by feature, zeros outside."""
    f = tl.arange(0, F)
    at = features + (level * F + f)[None, :] * n_points.to(tl.int64) + n[:, None]
    return tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["n_points", "n_values"])
def _scatter(
    x,
    v,
    factor,
    by_value,
    grad,
    scales,
    levels,
    grad_table,
    n_points,
    n_values,
    VALUE: tl.constexpr,
    GRAD: tl.constexpr,
    DIRECTIONAL: tl.constexpr,
    F: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add to each corner's row w (factor by_value + grad) + dw by_value, with w the corner's weight and dw its derivative
    along `v`: the transposes of `_gather`, in one atomic addition.

    VALUE, GRAD and DIRECTIONAL say which of the three products there are; the first `n_values` points have the first two.
    """
    level = tl.program_id(1)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f, inside, valued = tl.arange(0, F), n < n_points, n < n_values
    scale = tl.load(scales + level)
    resolution, offset, size, hashed = _level(levels, level)
    cx, fx = _cell(x, n, inside, scale)
    cy, fy = _cell(x + n_points, n, inside, scale)
    cz, fz = _cell(x + 2 * n_points, n, inside, scale)
    dx, dy, dz = _direction(v, n, inside, n_points, scale, DIRECTIONAL)
    g, s = tl.zeros((BLOCK, F), tl.float32), tl.zeros((BLOCK, F), tl.float32)
    if VALUE or DIRECTIONAL:
        s = _features_at(by_value, level, n, inside, n_points, F)
    if VALUE:
        g += tl.load(factor + n, mask=valued, other=0.0)[:, None] * s
    if GRAD:
        g += _features_at(grad, level, n, valued, n_values, F)
    for corner in tl.static_range(8):
        row = _row(cx + (corner & 1), cy + (corner >> 1 & 1), cz + (corner >> 2), resolution, size, hashed)
        to = grad_table + (offset + row.to(tl.int64))[:, None] * F + f[None, :]
        addend = tl.zeros((BLOCK, F), tl.float32)
        if VALUE or GRAD:
            addend += _weight(corner, fx, fy, fz, dx, dy, dz, False)[:, None] * g
        if DIRECTIONAL:
            addend += _weight(corner, fx, fy, fz, dx, dy, dz, True)[:, None] * s
        tl.atomic_add(to, addend.to(grad_table.dtype.element_ty), mask=inside[:, None], sem="relaxed")


@triton.jit
def _dot(table, offset, x, y, z, resolution, size, hashed, g, f, inside, F: tl.constexpr):
    """Return `g` times the features of a grid point."""
    row = _row(x, y, z, resolution, size, hashed)
    at = table + (offset + row.to(tl.int64))[:, None] * F + f[None, :]
    return tl.sum(tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32) * g, axis=1)


@triton.jit(do_not_specialize=["n_points"])
def _position_gradient(
    x,
    v,
    table,
    grad,
    scales,
    levels,
    out,
    n_points,
    N_LEVELS: tl.constexpr,
    SECOND: tl.constexpr,
    F: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradient of `grad . encoding` by position, or the gradient of (that along `v`) by position."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f, inside = tl.arange(0, F), n < n_points
    gx, gy, gz = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for level in range(N_LEVELS):
        scale = tl.load(scales + level)
        resolution, offset, size, hashed = _level(levels, level)
        cx, x1 = _cell(x, n, inside, scale)
        cy, y1 = _cell(x + n_points, n, inside, scale)
        cz, z1 = _cell(x + 2 * n_points, n, inside, scale)
        x0, y0, z0 = 1.0 - x1, 1.0 - y1, 1.0 - z1
        at = grad + (level * F + f)[None, :] * n_points.to(tl.int64) + n[:, None]
        g = tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
        d0 = _dot(table, offset, cx, cy, cz, resolution, size, hashed, g, f, inside, F)
        d1 = _dot(table, offset, cx + 1, cy, cz, resolution, size, hashed, g, f, inside, F)
        d2 = _dot(table, offset, cx, cy + 1, cz, resolution, size, hashed, g, f, inside, F)
        d3 = _dot(table, offset, cx + 1, cy + 1, cz, resolution, size, hashed, g, f, inside, F)
        d4 = _dot(table, offset, cx, cy, cz + 1, resolution, size, hashed, g, f, inside, F)
        d5 = _dot(table, offset, cx + 1, cy, cz + 1, resolution, size, hashed, g, f, inside, F)
        d6 = _dot(table, offset, cx, cy + 1, cz + 1, resolution, size, hashed, g, f, inside, F)
        d7 = _dot(table, offset, cx + 1, cy + 1, cz + 1, resolution, size, hashed, g, f, inside, F)
        if SECOND:
            vx, vy, vz = _direction(v, n, inside, n_points, scale * scale, True)
            xy = z0 * (d3 - d2 - d1 + d0) + z1 * (d7 - d6 - d5 + d4)
            xz = y0 * (d5 - d4 - d1 + d0) + y1 * (d7 - d6 - d3 + d2)
            yz = x0 * (d6 - d4 - d2 + d0) + x1 * (d7 - d5 - d3 + d1)
            gx += xy * vy + xz * vz
            gy += xy * vx + yz * vz
            gz += xz * vx + yz * vy
        else:
            gx += scale * (z0 * (y0 * (d1 - d0) + y1 * (d3 - d2)) + z1 * (y0 * (d5 - d4) + y1 * (d7 - d6)))
            gy += scale * (z0 * (x0 * (d2 - d0) + x1 * (d3 - d1)) + z1 * (x0 * (d6 - d4) + x1 * (d7 - d5)))
            gz += scale * (y0 * (x0 * (d4 - d0) + x1 * (d5 - d1)) + y1 * (x0 * (d6 - d2) + x1 * (d7 - d3)))
    tl.store(out + n, gx, mask=inside)
    tl.store(out + n_points + n, gy, mask=inside)
    tl.store(out + 2 * n_points + n, gz, mask=inside)


@functools.lru_cache(maxsize=8)
def _sizes(levels: tuple[Level, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return every level's scale, and its resolution, first row, rows and hashing, on the device."""
    scales = torch.tensor([level.scale for level in levels], dtype=torch.float32, device=device)
    return scales, torch.tensor([level[1:] for level in levels], dtype=torch.int32, device=device)


def _add(
    x: Tensor,
    levels: tuple[Level, ...],
    grad_table: Tensor,
    v: Tensor | None = None,
    factor: Tensor | None = None,
    by_value: Tensor | None = None,
    grad: Tensor | None = None,
) -> None:
    """Start `_scatter` without the products of what is None."""
    n, of_values = x.shape[1], factor if grad is None else grad
    n_values = n if of_values is None else of_values.shape[-1]
    tensors = [x if t is None else t for t in (v, factor, by_value, grad)]  # x is not read in their place
    arguments = (x, *tensors, *_sizes(levels, x.device), grad_table, n, n_values)
    constants = factor is not None, grad is not None, v is not None, grad_table.shape[1], _BLOCK
    launch(_scatter, (blocks(n, _BLOCK), len(levels)), *arguments, *constants)


class TritonKernels(Kernels):
    """The kernels above on tensors."""

    @staticmethod
    def interpolate(x: Tensor, v: Tensor | None, table: Tensor, levels: tuple[Level, ...]) -> Tensor:
        n, n_features = x.shape[1], table.shape[1]
        out = x.new_empty(len(levels) * n_features, n)
        arguments = (x, x if v is None else v, table, *_sizes(levels, x.device), out, n)
        launch(_gather, (blocks(n, _BLOCK), len(levels)), *arguments, v is not None, n_features, _BLOCK)
        return out

    @staticmethod
    def add_to_table(x: Tensor, v: Tensor | None, grad: Tensor, levels: tuple[Level, ...], grad_table: Tensor) -> None:
        if v is None:
            _add(x, levels, grad_table, grad=grad)
        else:
            _add(x, levels, grad_table, v=v, by_value=grad)

    @staticmethod
    def add_all_to_table(
        x: Tensor,
        v: Tensor | None,
        factor: Tensor,
        by_value: Tensor,
        grad: Tensor | None,
        levels: tuple[Level, ...],
        grad_table: Tensor,
    ) -> None:
        _add(x, levels, grad_table, v, factor, by_value, grad)

    @staticmethod
    def differentiate(x: Tensor, v: Tensor | None, table: Tensor, grad: Tensor, levels: tuple[Level, ...]) -> Tensor:
        n, out = x.shape[1], torch.empty_like(x)
        arguments = (x, x if v is None else v, table, grad, *_sizes(levels, x.device), out, n)
        constants = (len(levels), v is not None, table.shape[1], _BLOCK)
        launch(_position_gradient, (blocks(n, _BLOCK),), *arguments, *constants)
        return out


def encode(x: Tensor, table: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None = None) -> Tensor:
    """Encode float32 points as `reference.encode` does, from a table of any floating type."""
    return autograd.encode(TritonKernels, x, table, levels, keep)


def position_gradient(
    x: Tensor, table: Tensor, grad: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None = None
) -> Tensor:
    """Return the gradient of `grad . encode(x)` by `x`, differentiable in table and `grad`."""
    return autograd.position_gradient(TritonKernels, x, table, grad, levels, keep)
