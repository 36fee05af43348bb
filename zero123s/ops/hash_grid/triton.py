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


@triton.jit(do_not_specialize=["n_points"])
def _scatter(
    x, v, grad, scales, levels, grad_table, n_points, DIRECTIONAL: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr
):
    """Add the transpose of `_gather`, applied to `grad`, to the table gradient."""
    level = tl.program_id(1)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f, inside = tl.arange(0, F), n < n_points
    scale = tl.load(scales + level)
    resolution, offset, size, hashed = _level(levels, level)
    cx, fx = _cell(x, n, inside, scale)
    cy, fy = _cell(x + n_points, n, inside, scale)
    cz, fz = _cell(x + 2 * n_points, n, inside, scale)
    dx, dy, dz = _direction(v, n, inside, n_points, scale, DIRECTIONAL)
    at = grad + (level * F + f)[None, :] * n_points.to(tl.int64) + n[:, None]
    g = tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
    for corner in tl.static_range(8):
        row = _row(cx + (corner & 1), cy + (corner >> 1 & 1), cz + (corner >> 2), resolution, size, hashed)
        to = grad_table + (offset + row.to(tl.int64))[:, None] * F + f[None, :]
        addend = _weight(corner, fx, fy, fz, dx, dy, dz, DIRECTIONAL)[:, None] * g
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


class _TritonKernels(Kernels):
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
        n = x.shape[1]
        arguments = (x, x if v is None else v, grad, *_sizes(levels, x.device), grad_table, n)
        launch(_scatter, (blocks(n, _BLOCK), len(levels)), *arguments, v is not None, grad_table.shape[1], _BLOCK)

    @staticmethod
    def differentiate(x: Tensor, v: Tensor | None, table: Tensor, grad: Tensor, levels: tuple[Level, ...]) -> Tensor:
        n, out = x.shape[1], torch.empty_like(x)
        arguments = (x, x if v is None else v, table, grad, *_sizes(levels, x.device), out, n)
        constants = (len(levels), v is not None, table.shape[1], _BLOCK)
        launch(_position_gradient, (blocks(n, _BLOCK),), *arguments, *constants)
        return out


def encode(x: Tensor, table: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None = None) -> Tensor:
    """Encode float32 points as `reference.encode` does, from a table of any floating type."""
    return autograd.encode(_TritonKernels, x, table, levels, keep)


def position_gradient(
    x: Tensor, table: Tensor, grad: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None = None
) -> Tensor:
    """Return the gradient of `grad . encode(x)` by `x`, differentiable in table and `grad`."""
    return autograd.position_gradient(_TritonKernels, x, table, grad, levels, keep)
