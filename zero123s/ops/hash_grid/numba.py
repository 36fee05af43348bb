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

_BLOCK = 256
"""Points that go through the loops together; their scratch (8 corners, 4 bytes, four times) stays in the L1 cache."""
_HALF, _ONE = np.float32(0.5), np.float32(1.0)
# numba widens sums of 32-bit integers, which halves what a vector holds.
_u32 = np.uint32
_1, _Y, _Z = _u32(1), _u32(2654435761), _u32(805459861)


@njit
def _find_rows(x, first, count, scale, resolution, size, hashed, fraction, rows):
    """Fill the fractions inside the cells, by axis, and the rows (inside the level) of the corners, by corner.

    Cells are unsigned 32 bit and wrap below zero, as in tiny-cuda-nn.
    """
    for axis in range(3):
        position = x[axis, first : first + count]
        offset, cell = fraction[axis * _BLOCK : (axis + 1) * _BLOCK], rows[axis * _BLOCK : (axis + 1) * _BLOCK]
        for n in range(count):
            scaled = position[n] * scale + _HALF
            base = np.floor(scaled)
            offset[n] = scaled - base
            cell[n] = np.int32(base)
    if hashed:
        _hash(count, _u32(size - 1), rows)
    else:
        _stride(count, _u32(resolution), _u32(size), rows)


@njit
def _hash(count, mask, rows):
    """Turn cells, by axis, into hashed rows of their corners."""
    for n in range(count):
        x0, y0, z0 = rows[n], _u32(rows[_BLOCK + n] * _Y), _u32(rows[2 * _BLOCK + n] * _Z)
        x1, y1, z1 = _u32(x0 + _1), _u32(y0 + _Y), _u32(z0 + _Z)
        rows[n], rows[_BLOCK + n] = (x0 ^ y0 ^ z0) & mask, (x1 ^ y0 ^ z0) & mask
        rows[2 * _BLOCK + n], rows[3 * _BLOCK + n] = (x0 ^ y1 ^ z0) & mask, (x1 ^ y1 ^ z0) & mask
        rows[4 * _BLOCK + n], rows[5 * _BLOCK + n] = (x0 ^ y0 ^ z1) & mask, (x1 ^ y0 ^ z1) & mask
        rows[6 * _BLOCK + n], rows[7 * _BLOCK + n] = (x0 ^ y1 ^ z1) & mask, (x1 ^ y1 ^ z1) & mask


@njit
def _stride(count, resolution, size, rows):
    """Turn cells, by axis, into the rows of their corners in a dense level."""
    plane, largest = _u32(resolution * resolution), _u32(0)
    for n in range(count):
        r0 = _u32(rows[n] + _u32(_u32(rows[_BLOCK + n] * resolution) + _u32(rows[2 * _BLOCK + n] * plane)))
        r2, r4 = _u32(r0 + resolution), _u32(r0 + plane)
        r6 = _u32(r4 + resolution)
        rows[n], rows[_BLOCK + n], rows[2 * _BLOCK + n], rows[3 * _BLOCK + n] = r0, _u32(r0 + _1), r2, _u32(r2 + _1)
        rows[4 * _BLOCK + n], rows[5 * _BLOCK + n] = r4, _u32(r4 + _1)
        rows[6 * _BLOCK + n], rows[7 * _BLOCK + n] = r6, _u32(r6 + _1)
    for k in range(8):
        for n in range(count):
            largest = max(largest, rows[k * _BLOCK + n])
    if largest >= size:  # points beyond the last grid point; a division costs more than all the rest
        for k in range(8):
            for n in range(count):
                rows[k * _BLOCK + n] %= size


@njit
def _fill_weights(fraction, v, directional, first, count, scale, weights):
    """Fill the trilinear weight of each corner, or its derivative along `v`."""
    vx, vy, vz = v[0, first : first + count], v[1, first : first + count], v[2, first : first + count]
    for n in range(count):
        x1, y1, z1 = fraction[n], fraction[_BLOCK + n], fraction[2 * _BLOCK + n]
        x0, y0, z0 = _ONE - x1, _ONE - y1, _ONE - z1
        if directional:
            dx, dy, dz = vx[n] * scale, vy[n] * scale, vz[n] * scale
            for k in range(8):
                x, sx = (x1, dx) if k & 1 else (x0, -dx)
                y, sy = (y1, dy) if k & 2 else (y0, -dy)
                z, sz = (z1, dz) if k & 4 else (z0, -dz)
                weights[k * _BLOCK + n] = sx * y * z + x * (sy * z + y * sz)
        else:
            for k in range(8):
                yz = (y1 if k & 2 else y0) * (z1 if k & 4 else z0)
                weights[k * _BLOCK + n] = (x1 if k & 1 else x0) * yz


@njit
def _read_rows(table, pair, offset, count, rows, values):
    """Copy one pair of features of every corner."""
    for k in range(8):
        for n in range(count):
            values[k * _BLOCK + n] = table[offset + np.int64(rows[k * _BLOCK + n]), pair]


@njit(cache=True, nogil=True)
def _gather(part, n_parts, x, v, directional, table, scales, sizes, out):
    """Interpolate the table, or differentiate the interpolation along `v`."""
    n_pairs, size_of_part = table.shape[1], (x.shape[1] + n_parts - 1) // n_parts
    fraction, weights = np.empty(3 * _BLOCK, np.float32), np.empty(8 * _BLOCK, np.float32)
    rows, values = np.empty(8 * _BLOCK, np.uint32), np.empty(8 * _BLOCK, np.float64)
    features = values.view(np.float32)
    end = min(x.shape[1], (part + 1) * size_of_part)
    for level in range(scales.shape[0]):
        resolution, offset, size, hashed = sizes[level]
        for first in range(part * size_of_part, end, _BLOCK):
            count = min(_BLOCK, end - first)
            _find_rows(x, first, count, scales[level], resolution, size, hashed, fraction, rows)
            _fill_weights(fraction, v, directional, first, count, scales[level], weights)
            for pair in range(n_pairs):
                _read_rows(table, pair, offset, count, rows, values)
                channel = (level * n_pairs + pair) * 2
                out0, out1 = out[channel, first : first + count], out[channel + 1, first : first + count]
                for n in range(count):
                    sum0, sum1 = np.float32(0), np.float32(0)
                    for k in range(8):
                        sum0 += weights[k * _BLOCK + n] * features[2 * (k * _BLOCK + n)]
                        sum1 += weights[k * _BLOCK + n] * features[2 * (k * _BLOCK + n) + 1]
                    out0[n] = sum0
                    out1[n] = sum1


@njit(cache=True, nogil=True)
def _scatter(part, n_parts, x, v, directional, grad, scales, sizes, grad_table):
    """Add the transpose of `_gather`, applied to `grad`, to the table gradient."""
    n_pairs = grad_table.shape[1]
    fraction, weights = np.empty(3 * _BLOCK, np.float32), np.empty(8 * _BLOCK, np.float32)
    rows = np.empty(8 * _BLOCK, np.uint32)
    for level in range(part, scales.shape[0], n_parts):
        resolution, offset, size, hashed = sizes[level]
        for first in range(0, x.shape[1], _BLOCK):
            count = min(_BLOCK, x.shape[1] - first)
            _find_rows(x, first, count, scales[level], resolution, size, hashed, fraction, rows)
            _fill_weights(fraction, v, directional, first, count, scales[level], weights)
            for pair in range(n_pairs):
                channel = (level * n_pairs + pair) * 2
                for n in range(count):
                    grad0, grad1 = grad[channel, first + n], grad[channel + 1, first + n]
                    for k in range(8):
                        row, weight = offset + np.int64(rows[k * _BLOCK + n]), weights[k * _BLOCK + n]
                        old = grad_table[row, pair]
                        grad_table[row, pair] = complex(old.real + weight * grad0, old.imag + weight * grad1)


@njit(cache=True, nogil=True)
def _scatter_all(part, n_parts, x, v, directional, factors, by_value, grad, with_grad, scales, sizes, grad_table):
    """Add to each corner's row w (factor by_value + grad) + dw by_value, with dw the weight's derivative along `v`."""
    n_pairs = grad_table.shape[1]
    fraction, weights = np.empty(3 * _BLOCK, np.float32), np.empty(8 * _BLOCK, np.float32)
    slopes, rows = np.zeros(8 * _BLOCK, np.float32), np.empty(8 * _BLOCK, np.uint32)
    grad0, grad1 = np.float32(0), np.float32(0)
    for level in range(part, scales.shape[0], n_parts):
        resolution, offset, size, hashed = sizes[level]
        for first in range(0, x.shape[1], _BLOCK):
            count = min(_BLOCK, x.shape[1] - first)
            _find_rows(x, first, count, scales[level], resolution, size, hashed, fraction, rows)
            _fill_weights(fraction, v, False, first, count, scales[level], weights)
            if directional:
                _fill_weights(fraction, v, True, first, count, scales[level], slopes)
            factor = factors[first : first + count]
            for k in range(8):
                for n in range(count):
                    m = k * _BLOCK + n
                    slopes[m] = weights[m] * factor[n] + (slopes[m] if directional else np.float32(0))
            for pair in range(n_pairs):
                channel = (level * n_pairs + pair) * 2
                for n in range(count):
                    value0, value1 = by_value[channel, first + n], by_value[channel + 1, first + n]
                    if with_grad:
                        grad0, grad1 = grad[channel, first + n], grad[channel + 1, first + n]
                    for k in range(8):
                        row = offset + np.int64(rows[k * _BLOCK + n])
                        weight, slope = weights[k * _BLOCK + n], slopes[k * _BLOCK + n]
                        old = grad_table[row, pair]
                        grad_table[row, pair] = complex(
                            old.real + slope * value0 + weight * grad0, old.imag + slope * value1 + weight * grad1
                        )


@njit(cache=True, nogil=True)
def _position_gradient(part, n_parts, x, v, second, table, grad, scales, sizes, out):
    """Add the gradient of `grad . encoding` by position, or the gradient of (that along `v`) by position."""
    n_pairs, size_of_part = table.shape[1], (x.shape[1] + n_parts - 1) // n_parts
    fraction, dots = np.empty(3 * _BLOCK, np.float32), np.empty(8 * _BLOCK, np.float32)
    rows, values = np.empty(8 * _BLOCK, np.uint32), np.empty(8 * _BLOCK, np.float64)
    features = values.view(np.float32)
    end = min(x.shape[1], (part + 1) * size_of_part)
    for level in range(scales.shape[0]):
        resolution, offset, size, hashed = sizes[level]
        for first in range(part * size_of_part, end, _BLOCK):
            count = min(_BLOCK, end - first)
            _find_rows(x, first, count, scales[level], resolution, size, hashed, fraction, rows)
            dots[:] = np.float32(0)
            for pair in range(n_pairs):
                _read_rows(table, pair, offset, count, rows, values)
                channel = (level * n_pairs + pair) * 2
                grad0, grad1 = grad[channel, first : first + count], grad[channel + 1, first : first + count]
                for k in range(8):
                    for n in range(count):
                        m = k * _BLOCK + n
                        dots[m] += features[2 * m] * grad0[n] + features[2 * m + 1] * grad1[n]
            _differentiate(fraction, v, second, dots, first, count, scales[level], out)


@njit
def _differentiate(fraction, v, second, dots, first, count, scale, out):
    """Add the derivative of sum_k weight_k dots_k by position, or of its derivative along `v`."""
    vx, vy, vz = v[0, first : first + count], v[1, first : first + count], v[2, first : first + count]
    gx, gy, gz = out[0, first : first + count], out[1, first : first + count], out[2, first : first + count]
    for n in range(count):
        x1, y1, z1 = fraction[n], fraction[_BLOCK + n], fraction[2 * _BLOCK + n]
        x0, y0, z0 = _ONE - x1, _ONE - y1, _ONE - z1
        d0, d1, d2, d3 = dots[n], dots[_BLOCK + n], dots[2 * _BLOCK + n], dots[3 * _BLOCK + n]
        d4, d5, d6, d7 = dots[4 * _BLOCK + n], dots[5 * _BLOCK + n], dots[6 * _BLOCK + n], dots[7 * _BLOCK + n]
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


class _Sizes(NamedTuple):
    """The grid's levels as arguments of the kernels."""

    scales: np.ndarray
    levels: np.ndarray

    @staticmethod
    def of(levels: tuple[Level, ...]) -> "_Sizes":
        scales = np.array([level.scale for level in levels], dtype=np.float32)
        return _Sizes(scales, np.array([level[1:] for level in levels], dtype=np.int64))


class NumbaKernels(Kernels):
    """The kernels above on tensors; features are read and written in pairs."""

    @staticmethod
    def interpolate(x: Tensor, v: Tensor | None, table: Tensor, levels: tuple[Level, ...]) -> Tensor:
        out = x.new_empty(len(levels) * table.shape[1], x.shape[1])
        pairs = table.detach().view(torch.float64)
        launch(_gather, x, x if v is None else v, v is not None, pairs, *_Sizes.of(levels), out)
        return out

    @staticmethod
    def add_to_table(x: Tensor, v: Tensor | None, grad: Tensor, levels: tuple[Level, ...], grad_table: Tensor) -> None:
        pairs = grad_table.view(torch.complex64)
        launch(_scatter, x, x if v is None else v, v is not None, grad, *_Sizes.of(levels), pairs)

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
        pairs, sizes = grad_table.view(torch.complex64), _Sizes.of(levels)
        directions, others = x if v is None else v, by_value if grad is None else grad
        flags = v is not None, grad is not None
        launch(_scatter_all, x, directions, flags[0], factor, by_value, others, flags[1], *sizes, pairs)

    @staticmethod
    def differentiate(x: Tensor, v: Tensor | None, table: Tensor, grad: Tensor, levels: tuple[Level, ...]) -> Tensor:
        out, pairs = torch.zeros_like(x), table.detach().view(torch.float64)
        launch(_position_gradient, x, x if v is None else v, v is not None, pairs, grad, *_Sizes.of(levels), out)
        return out


def encode(x: Tensor, table: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None = None) -> Tensor:
    """Encode float32 CPU points as `reference.encode` does, with an even number of features per level."""
    return autograd.encode(NumbaKernels, x, table, levels, keep)


def position_gradient(
    x: Tensor, table: Tensor, grad: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None = None
) -> Tensor:
    """Return the gradient of `grad . encode(x)` by `x`, differentiable in table and `grad`."""
    return autograd.position_gradient(NumbaKernels, x, table, grad, levels, keep)
