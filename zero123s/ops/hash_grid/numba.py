"""Hash encoding on the CPU: level-major numba kernels for the encoding, its gradients and their derivatives.

Level by level, because one level's rows fit into the cache where the whole table does not. Points and features are
stored axis by axis and feature by feature, so that a level reads and writes whole cache lines. Each block of points
goes through short loops that the compiler can vectorise: cells, rows, weights; only reading and adding rows is scalar.
In the table gradient one thread owns a level: no atomics, and the same sum for any number of threads.
"""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from zero123s.ops.hash_grid import autograd
from zero123s.ops.hash_grid.autograd import Kernels
from zero123s.ops.hash_grid.reference import GradBuffer, Level
from zero123s.ops.kernels import launch

BLOCK = 256
"""Points that go through the loops together; their scratch (8 corners, 4 bytes, four times) stays in the L1 cache."""
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_CONTRACT = {"contract", "nsz"}
"""Products and sums may be fused; the sign of a zero does not matter."""
# numba widens sums of 32-bit integers, which halves what a vector holds.
_u32 = np.uint32
_1, _Y, _Z = _u32(1), _u32(2654435761), _u32(805459861)


@njit
def find_rows(x, first, count, scale, resolution, size, hashed, n_pairs, fraction, rows) -> None:
    """Fill the fractions inside the cells, by axis, and the places (inside the level) of the corners' rows, by corner.

    Cells are unsigned 32 bit and wrap below zero, as in tiny-cuda-nn.
    """
    for axis in range(3):
        position = x[axis, first : first + count]
        offset, cell = fraction[axis * BLOCK : (axis + 1) * BLOCK], rows[axis * BLOCK : (axis + 1) * BLOCK]
        for n in range(count):
            scaled = position[n] * scale + _HALF
            base = np.floor(scaled)
            offset[n] = scaled - base
            cell[n] = np.int32(base)
    if hashed:
        _hash(count, _u32(size - 1), rows)
    else:
        _stride(count, _u32(resolution), _u32(size), rows)
    if n_pairs > 1:
        for m in range(8 * BLOCK):
            rows[m] = _u32(rows[m] * _u32(n_pairs))


@njit
def _hash(count, mask, rows):
    """Turn cells, by axis, into hashed rows of their corners."""
    for n in range(count):
        x0, y0, z0 = rows[n], _u32(rows[BLOCK + n] * _Y), _u32(rows[2 * BLOCK + n] * _Z)
        x1, y1, z1 = _u32(x0 + _1), _u32(y0 + _Y), _u32(z0 + _Z)
        rows[n], rows[BLOCK + n] = (x0 ^ y0 ^ z0) & mask, (x1 ^ y0 ^ z0) & mask
        rows[2 * BLOCK + n], rows[3 * BLOCK + n] = (x0 ^ y1 ^ z0) & mask, (x1 ^ y1 ^ z0) & mask
        rows[4 * BLOCK + n], rows[5 * BLOCK + n] = (x0 ^ y0 ^ z1) & mask, (x1 ^ y0 ^ z1) & mask
        rows[6 * BLOCK + n], rows[7 * BLOCK + n] = (x0 ^ y1 ^ z1) & mask, (x1 ^ y1 ^ z1) & mask


@njit
def _stride(count, resolution, size, rows):
    """Turn cells, by axis, into the rows of their corners in a dense level."""
    plane, largest = _u32(resolution * resolution), _u32(0)
    for n in range(count):
        r0 = _u32(rows[n] + _u32(_u32(rows[BLOCK + n] * resolution) + _u32(rows[2 * BLOCK + n] * plane)))
        r2, r4 = _u32(r0 + resolution), _u32(r0 + plane)
        r6 = _u32(r4 + resolution)
        rows[n], rows[BLOCK + n], rows[2 * BLOCK + n], rows[3 * BLOCK + n] = r0, _u32(r0 + _1), r2, _u32(r2 + _1)
        rows[4 * BLOCK + n], rows[5 * BLOCK + n] = r4, _u32(r4 + _1)
        rows[6 * BLOCK + n], rows[7 * BLOCK + n] = r6, _u32(r6 + _1)
    for k in range(8):
        for n in range(count):
            largest = max(largest, rows[k * BLOCK + n])
    if largest >= size:  # points beyond the last grid point; a division costs more than all the rest
        for k in range(8):
            for n in range(count):
                rows[k * BLOCK + n] %= size


@njit
def _fill_weights(fraction, v, directional, first, count, scale, weights):
    """Fill the trilinear weight of each corner, or its derivative along `v`."""
    vx, vy, vz = v[0, first : first + count], v[1, first : first + count], v[2, first : first + count]
    for n in range(count):
        x1, y1, z1 = fraction[n], fraction[BLOCK + n], fraction[2 * BLOCK + n]
        x0, y0, z0 = _ONE - x1, _ONE - y1, _ONE - z1
        if directional:
            dx, dy, dz = vx[n] * scale, vy[n] * scale, vz[n] * scale
            for k in range(8):
                x, sx = (x1, dx) if k & 1 else (x0, -dx)
                y, sy = (y1, dy) if k & 2 else (y0, -dy)
                z, sz = (z1, dz) if k & 4 else (z0, -dz)
                weights[k * BLOCK + n] = sx * y * z + x * (sy * z + y * sz)
        else:
            for k in range(8):
                yz = (y1 if k & 2 else y0) * (z1 if k & 4 else z0)
                weights[k * BLOCK + n] = (x1 if k & 1 else x0) * yz


@njit
def column(table, offset, size, pair) -> np.ndarray:
    """Return a level's pairs of features from one on; those of a row are `table.shape[1]` further than those before."""
    n_pairs = table.shape[1]
    return table.reshape(-1)[offset * n_pairs + pair : (offset + size) * n_pairs]


@njit
def read_rows(pairs, count, rows, values) -> None:
    """Copy one pair of features of every corner; unsigned indices are not checked for their sign."""
    for k in range(8):
        for n in range(count):
            values[k * BLOCK + n] = pairs[np.uint64(rows[k * BLOCK + n])]


@njit(cache=True, nogil=True)
def _gather(part, n_parts, x, v, directional, table, scales, sizes, out):
    """Interpolate the table, or differentiate the interpolation along `v`."""
    n_pairs, size_of_part = table.shape[1], (x.shape[1] + n_parts - 1) // n_parts
    fraction, weights = np.empty(3 * BLOCK, np.float32), np.empty(8 * BLOCK, np.float32)
    rows, values = np.empty(8 * BLOCK, np.uint32), np.empty(8 * BLOCK, np.float64)
    features = values.view(np.float32)
    end = min(x.shape[1], (part + 1) * size_of_part)
    for level in range(scales.shape[0]):
        resolution, offset, size, hashed = sizes[level]
        for first in range(part * size_of_part, end, BLOCK):
            count = min(BLOCK, end - first)
            find_rows(x, first, count, scales[level], resolution, size, hashed, n_pairs, fraction, rows)
            _fill_weights(fraction, v, directional, first, count, scales[level], weights)
            for pair in range(n_pairs):
                read_rows(column(table, offset, size, pair), count, rows, values)
                channel = (level * n_pairs + pair) * 2
                _sum_corners(weights, features, first, count, out[channel], out[channel + 1])


@njit(cache=True, nogil=True)
def _scatter(
    part, n_parts, x, v, directional, factors, by_value, grad, table, scales, sizes, tangent, grad_table, flags
):
    """Add to each corner's row w (factor by_value + grad) + dw by_value, with dw the weight's derivative along `v`.

    `tangent` gets the sum of (w factor + dw) table over the corners. `flags`: whether there is `grad`; `tangent`; the
    table gradient.
    """
    n_pairs = grad_table.shape[1]
    fraction, weights = np.empty(3 * BLOCK, np.float32), np.empty(8 * BLOCK, np.float32)
    slopes, rows = np.zeros(8 * BLOCK, np.float32), np.empty(8 * BLOCK, np.uint32)
    corners = np.empty(8 * BLOCK, np.float64)
    both = corners.view(np.float32)
    with_grad, with_tangent, with_table = flags
    for level in range(part, scales.shape[0], n_parts):
        resolution, offset, size, hashed = sizes[level]
        for first in range(0, x.shape[1], BLOCK):
            count = min(BLOCK, x.shape[1] - first)
            find_rows(x, first, count, scales[level], resolution, size, hashed, n_pairs, fraction, rows)
            _fill_weights(fraction, v, False, first, count, scales[level], weights)
            if directional:
                _fill_weights(fraction, v, True, first, count, scales[level], slopes)
            factor = factors[first : first + count]
            for k in range(8):
                for n in range(count):
                    m = k * BLOCK + n
                    slopes[m] = weights[m] * factor[n] + (slopes[m] if directional else _ZERO)
            for pair in range(n_pairs):
                c = (level * n_pairs + pair) * 2
                if with_tangent:
                    read_rows(column(table, offset, size, pair), count, rows, corners)
                    _sum_corners(slopes, both, first, count, tangent[c], tangent[c + 1])
                if with_table:
                    _fill_addends(slopes, by_value, weights, grad, with_grad, c, first, count, both)
                    _add_rows(rows, corners.view(np.complex64), count, column(grad_table, offset, size, pair))


@njit(fastmath=_CONTRACT)
def _sum_corners(weights, corners, first, count, out0, out1):
    """Sum pairs of features over the corners."""
    sum0, sum1 = out0[first : first + count], out1[first : first + count]
    for n in range(count):
        total0, total1 = _ZERO, _ZERO
        for k in range(8):
            weight, m = weights[k * BLOCK + n], 2 * (k * BLOCK + n)
            total0 += weight * corners[m]
            total1 += weight * corners[m + 1]
        sum0[n] = total0
        sum1[n] = total1


@njit(fastmath=_CONTRACT)
def _fill_addends(slopes, by_value, weights, grad, with_grad, c, first, count, out):
    """Write what each corner's pair of features gets."""
    v0, v1 = by_value[c, first : first + count], by_value[c + 1, first : first + count]
    g0, g1 = grad[c, first : first + count], grad[c + 1, first : first + count]
    for k in range(8):
        for n in range(count):
            m = k * BLOCK + n
            out[2 * m] = slopes[m] * v0[n] + (weights[m] * g0[n] if with_grad else _ZERO)
            out[2 * m + 1] = slopes[m] * v1[n] + (weights[m] * g1[n] if with_grad else _ZERO)


@njit
def _add_rows(rows, addends, count, pairs):
    """Add to one pair of features of every corner, point by point, so that a cell's rows are in the cache."""
    for n in range(count):
        for k in range(8):
            m = k * BLOCK + n
            pairs[np.uint64(rows[m])] += addends[m]


@njit(cache=True, nogil=True)
def _position_gradient(part, n_parts, x, v, second, table, grad, scales, sizes, out):
    """Add the gradient of `grad . encoding` by position, or the gradient of (that along `v`) by position."""
    n_pairs, size_of_part = table.shape[1], (x.shape[1] + n_parts - 1) // n_parts
    fraction, dots = np.empty(3 * BLOCK, np.float32), np.empty(8 * BLOCK, np.float32)
    rows, values = np.empty(8 * BLOCK, np.uint32), np.empty(8 * BLOCK, np.float64)
    features = values.view(np.float32)
    end = min(x.shape[1], (part + 1) * size_of_part)
    for level in range(scales.shape[0]):
        resolution, offset, size, hashed = sizes[level]
        for first in range(part * size_of_part, end, BLOCK):
            count = min(BLOCK, end - first)
            find_rows(x, first, count, scales[level], resolution, size, hashed, n_pairs, fraction, rows)
            dots[:] = np.float32(0)
            for pair in range(n_pairs):
                read_rows(column(table, offset, size, pair), count, rows, values)
                channel = (level * n_pairs + pair) * 2
                grad0, grad1 = grad[channel, first : first + count], grad[channel + 1, first : first + count]
                for k in range(8):
                    for n in range(count):
                        m = k * BLOCK + n
                        dots[m] += features[2 * m] * grad0[n] + features[2 * m + 1] * grad1[n]
            _differentiate(fraction, v, second, dots, first, count, scales[level], out)


@njit
def _differentiate(fraction, v, second, dots, first, count, scale, out):
    """Add the derivative of sum_k weight_k dots_k by position, or of its derivative along `v`."""
    vx, vy, vz = v[0, first : first + count], v[1, first : first + count], v[2, first : first + count]
    gx, gy, gz = out[0, first : first + count], out[1, first : first + count], out[2, first : first + count]
    for n in range(count):
        x1, y1, z1 = fraction[n], fraction[BLOCK + n], fraction[2 * BLOCK + n]
        x0, y0, z0 = _ONE - x1, _ONE - y1, _ONE - z1
        d0, d1, d2, d3 = dots[n], dots[BLOCK + n], dots[2 * BLOCK + n], dots[3 * BLOCK + n]
        d4, d5, d6, d7 = dots[4 * BLOCK + n], dots[5 * BLOCK + n], dots[6 * BLOCK + n], dots[7 * BLOCK + n]
        if second:
            xy = z0 * (d3 - d2 - d1 + d0) + z1 * (d7 - d6 - d5 + d4)
            xz = y0 * (d5 - d4 - d1 + d0) + y1 * (d7 - d6 - d3 + d2)
            yz = x0 * (d6 - d4 - d2 + d0) + x1 * (d7 - d5 - d3 + d1)
            gx[n] += scale * scale * (xy * vy[n] + xz * vz[n])
            gy[n] += scale * scale * (xy * vx[n] + yz * vz[n])
            gz[n] += scale * scale * (xz * vx[n] + yz * vy[n])
        else:
            gx[n] += scale * (z0 * (y0 * (d1 - d0) + y1 * (d3 - d2)) + z1 * (y0 * (d5 - d4) + y1 * (d7 - d6)))
            gy[n] += scale * (z0 * (x0 * (d2 - d0) + x1 * (d3 - d1)) + z1 * (x0 * (d6 - d4) + x1 * (d7 - d5)))
            gz[n] += scale * (y0 * (x0 * (d4 - d0) + x1 * (d5 - d1)) + y1 * (x0 * (d6 - d2) + x1 * (d7 - d3)))


class Sizes(NamedTuple):
    """The grid's levels as arguments of the kernels."""

    scales: np.ndarray
    levels: np.ndarray

    @staticmethod
    def of(levels: tuple[Level, ...]) -> "Sizes":
        scales = np.array([level.scale for level in levels], dtype=np.float32)
        return Sizes(scales, np.array([level[1:] for level in levels], dtype=np.int64))


def scatter(
    x: Tensor,
    v: Tensor | None,
    factor: Tensor,
    by_value: Tensor,
    grad: Tensor | None,
    levels: tuple[Level, ...],
    table: Tensor | None,
    grad_table: Tensor | None,
) -> Tensor | None:
    """Do what `Kernels.add_all_to_table` does while the rows of the table are read; one of both tensors may be None.

    Returns:
        LF N, where there is a table: factor times the features, plus their derivative along `v`.
    """
    either = table if grad_table is None else grad_table
    assert either is not None
    tangent = None if table is None else torch.empty_like(by_value)
    read, written = ((either if t is None else t).detach() for t in (table, grad_table))
    launch(
        *(_scatter, x, x if v is None else v, v is not None, factor, by_value, by_value if grad is None else grad),
        *(read.view(torch.float64), *Sizes.of(levels), by_value if tangent is None else tangent),
        *(written.view(torch.complex64), (grad is not None, tangent is not None, grad_table is not None)),
    )
    return tangent


class NumbaKernels(Kernels):
    """The kernels above on tensors; features are read and written in pairs."""

    @staticmethod
    def interpolate(x: Tensor, v: Tensor | None, table: Tensor, levels: tuple[Level, ...]) -> Tensor:
        out = x.new_empty(len(levels) * table.shape[1], x.shape[1])
        pairs = table.detach().view(torch.float64)
        launch(_gather, x, x if v is None else v, v is not None, pairs, *Sizes.of(levels), out)
        return out

    @staticmethod
    def add_to_table(x: Tensor, v: Tensor | None, grad: Tensor, levels: tuple[Level, ...], grad_table: Tensor) -> None:
        factor = x.new_full(x.shape[1:], float(v is None))
        NumbaKernels.add_all_to_table(x, v, factor, grad, None, levels, grad_table)

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
        assert len(factor) == x.shape[1], "of all points"
        scatter(x, v, factor, by_value, grad, levels, None, grad_table)

    @staticmethod
    def differentiate(x: Tensor, v: Tensor | None, table: Tensor, grad: Tensor, levels: tuple[Level, ...]) -> Tensor:
        out, pairs = torch.zeros_like(x), table.detach().view(torch.float64)
        launch(_position_gradient, x, x if v is None else v, v is not None, pairs, grad, *Sizes.of(levels), out)
        return out


def encode(x: Tensor, table: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None = None) -> Tensor:
    """Encode float32 CPU points as `reference.encode` does, with an even number of features per level."""
    return autograd.encode(NumbaKernels, x, table, levels, keep)


def position_gradient(
    x: Tensor, table: Tensor, grad: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None = None
) -> Tensor:
    """Return the gradient of `grad . encode(x)` by `x`, differentiable in table and `grad`."""
    return autograd.position_gradient(NumbaKernels, x, table, grad, levels, keep)
