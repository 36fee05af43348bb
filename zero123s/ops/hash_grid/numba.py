"""Hash encoding on the CPU: level-major numba kernels for the encoding, its gradients and their derivative.

Level by level, because one level's rows fit into the cache where the whole table does not. In the table gradients
one thread owns a level, so that they need no atomics and are the same for any number of threads.
"""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
import logging
import threading

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from zero123s.ops.hash_grid.reference import Level

logger = logging.getLogger(__name__)
# numba's fallback threading layer must not be entered by two threads at once.
_lock = threading.Lock()
_BLOCK = 2048
_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1.0), np.float32(0.0)
_Y, _Z = np.uint32(2654435761), np.uint32(805459861)


@njit(inline="always")
def _locate(x, scale):
    """Return the cell (as unsigned 32 bit, wrapping below zero) and the fraction inside it."""
    position = x * scale + _HALF
    base = np.floor(position)
    return np.uint32(np.int64(base)), position - base


@njit(inline="always")
def _row(x, y, z, resolution, size, hashed):
    """Return the row of a grid point inside its level."""
    if hashed:
        return np.int64(np.uint32(x ^ np.uint32(y * _Y) ^ np.uint32(z * _Z)) & np.uint32(size - 1))
    row = np.int64(np.uint32(x + y * resolution + z * resolution * resolution))
    # A division costs more than the rest; only points beyond the last grid point need it.
    return row if row < size else row % size


@njit(inline="always")
def _corner_row(c, x, y, z, resolution, size, hashed):
    return _row(np.uint32(x + (c & 1)), np.uint32(y + (c >> 1 & 1)), np.uint32(z + (c >> 2)), resolution, size, hashed)


@njit(inline="always")
def _side(bit, fraction):
    return fraction if bit else _ONE - fraction


@njit(cache=True, parallel=True)
def _forward(x, table, scales, sizes, out):
    n_features = table.shape[1]
    for level in prange(scales.shape[0]):
        resolution, offset, size, hashed = sizes[level]
        scale = scales[level]
        for n in range(x.shape[0]):
            cx, fx = _locate(x[n, 0], scale)
            cy, fy = _locate(x[n, 1], scale)
            cz, fz = _locate(x[n, 2], scale)
            # Two features at a time stay in registers; sums in `out` would go to memory eight times.
            for f in range(0, n_features, 2):
                second = min(f + 1, n_features - 1)
                sum0, sum1 = _ZERO, _ZERO
                for c in range(8):
                    row = offset + _corner_row(c, cx, cy, cz, resolution, size, hashed)
                    weight = _side(c & 1, fx) * _side(c & 2, fy) * _side(c & 4, fz)
                    sum0 += weight * table[row, f]
                    sum1 += weight * table[row, second]
                out[n, level * n_features + f] = sum0
                out[n, level * n_features + second] = sum1


@njit(cache=True, parallel=True)
def _scatter(x, v, directional, grad, scales, sizes, grad_table):
    """Add weights (or their derivative along `v`) times `grad` to the table gradient."""
    n_features = grad_table.shape[1]
    for level in prange(scales.shape[0]):
        resolution, offset, size, hashed = sizes[level]
        scale = scales[level]
        for n in range(x.shape[0]):
            cx, fx = _locate(x[n, 0], scale)
            cy, fy = _locate(x[n, 1], scale)
            cz, fz = _locate(x[n, 2], scale)
            for c in range(8):
                row = offset + _corner_row(c, cx, cy, cz, resolution, size, hashed)
                wx, wy, wz = _side(c & 1, fx), _side(c & 2, fy), _side(c & 4, fz)
                weight = wx * wy * wz
                if directional:
                    dx = v[n, 0] if c & 1 else -v[n, 0]
                    dy = v[n, 1] if c & 2 else -v[n, 1]
                    dz = v[n, 2] if c & 4 else -v[n, 2]
                    weight = scale * (dx * wy * wz + wx * dy * wz + wx * wy * dz)
                for f in range(n_features):
                    grad_table[row, f] += weight * grad[n, level * n_features + f]


@njit(cache=True, parallel=True)
def _position_gradient(x, table, grad, scales, sizes, out):
    n_features = table.shape[1]
    for block in prange((x.shape[0] + _BLOCK - 1) // _BLOCK):
        end = min(x.shape[0], (block + 1) * _BLOCK)
        for level in range(scales.shape[0]):
            resolution, offset, size, hashed = sizes[level]
            scale = scales[level]
            for n in range(block * _BLOCK, end):
                cx, fx = _locate(x[n, 0], scale)
                cy, fy = _locate(x[n, 1], scale)
                cz, fz = _locate(x[n, 2], scale)
                gx, gy, gz = _ZERO, _ZERO, _ZERO
                for c in range(8):
                    row = offset + _corner_row(c, cx, cy, cz, resolution, size, hashed)
                    dot = _ZERO
                    for f in range(n_features):
                        dot += table[row, f] * grad[n, level * n_features + f]
                    wx, wy, wz = _side(c & 1, fx), _side(c & 2, fy), _side(c & 4, fz)
                    gx += dot * wy * wz if c & 1 else -dot * wy * wz
                    gy += dot * wx * wz if c & 2 else -dot * wx * wz
                    gz += dot * wx * wy if c & 4 else -dot * wx * wy
                out[n, 0] += scale * gx
                out[n, 1] += scale * gy
                out[n, 2] += scale * gz


@njit(cache=True, parallel=True)
def _second(x, table, v, grad, scales, sizes, jvp, grad_x):
    """Differentiate `v . position gradient`: by `grad` (the derivative of the encoding along v) and by `x`."""
    n_features = table.shape[1]
    for block in prange((x.shape[0] + _BLOCK - 1) // _BLOCK):
        end = min(x.shape[0], (block + 1) * _BLOCK)
        for level in range(scales.shape[0]):
            resolution, offset, size, hashed = sizes[level]
            scale = scales[level]
            for n in range(block * _BLOCK, end):
                cx, fx = _locate(x[n, 0], scale)
                cy, fy = _locate(x[n, 1], scale)
                cz, fz = _locate(x[n, 2], scale)
                for c in range(8):
                    row = offset + _corner_row(c, cx, cy, cz, resolution, size, hashed)
                    wx, wy, wz = _side(c & 1, fx), _side(c & 2, fy), _side(c & 4, fz)
                    sx, sy, sz = (
                        _ONE if c & 1 else -_ONE,
                        _ONE if c & 2 else -_ONE,
                        _ONE if c & 4 else -_ONE,
                    )
                    dx, dy, dz = sx * v[n, 0], sy * v[n, 1], sz * v[n, 2]
                    weight = scale * (dx * wy * wz + wx * dy * wz + wx * wy * dz)
                    dot = _ZERO
                    for f in range(n_features):
                        jvp[n, level * n_features + f] += weight * table[row, f]
                        dot += table[row, f] * grad[n, level * n_features + f]
                    dot *= scale * scale
                    grad_x[n, 0] += dot * sx * (dy * wz + wy * dz)
                    grad_x[n, 1] += dot * sy * (dx * wz + wx * dz)
                    grad_x[n, 2] += dot * sz * (dx * wy + wx * dy)


def _call(kernel, *args) -> None:
    """Run a kernel on tensors and arrays, one at a time, and say so when it has to be compiled first."""
    arrays = [a.detach().contiguous().numpy() if isinstance(a, Tensor) else a for a in args]
    with _lock:
        if not kernel.signatures:
            logger.info("Loading or compiling the kernel %s (seconds, the first time on this machine)", kernel.__name__)
        kernel(*arrays)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, scales: np.ndarray, sizes: np.ndarray) -> Tensor:
        ctx.save_for_backward(x, table)
        ctx.levels = scales, sizes
        out = x.new_empty(x.shape[0], scales.shape[0] * table.shape[1])
        _call(_forward, x, table, scales, sizes, out)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:  # type: ignore[override]
        x, table = ctx.saved_tensors
        grad_x = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_x = _PositionGradient.apply(x, table, grad, *ctx.levels)
        if ctx.needs_input_grad[1]:
            grad_table = _TableGradient.apply(x, table, grad, *ctx.levels)
        return grad_x, grad_table, None, None


class _TableGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, grad: Tensor, scales: np.ndarray, sizes: np.ndarray) -> Tensor:
        grad_table = torch.zeros_like(table)
        _call(_scatter, x, x, False, grad, scales, sizes, grad_table)
        return grad_table

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple:  # type: ignore[override]
        raise NotImplementedError("The table gradient of the numba encoding is differentiable once: use 'reference'.")


class _PositionGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, grad: Tensor, scales: np.ndarray, sizes: np.ndarray) -> Tensor:
        ctx.save_for_backward(x, table, grad)
        ctx.levels = scales, sizes
        out = torch.zeros_like(x)
        _call(_position_gradient, x, table, grad, scales, sizes, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v: Tensor) -> tuple:  # type: ignore[override]
        x, table, grad = ctx.saved_tensors
        jvp, grad_x = torch.zeros_like(grad), torch.zeros_like(x)
        _call(_second, x, table, v, grad, *ctx.levels, jvp, grad_x)
        grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table)
            _call(_scatter, x, v, True, grad, *ctx.levels, grad_table)
        return grad_x, grad_table, jvp, None, None


def encode(x: Tensor, table: Tensor, levels: tuple[Level, ...]) -> Tensor:
    """Encode float32 CPU points as `reference.encode` does."""
    scales = np.array([level.scale for level in levels], dtype=np.float32)
    sizes = np.array([level[1:] for level in levels], dtype=np.int64)
    return _Encode.apply(x, table, scales, sizes)  # type: ignore[return-value]
