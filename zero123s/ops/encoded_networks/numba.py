"""Encoding and networks with one hidden layer each on a CPU: numba kernels, and the function of autograd around them.

Each block of points goes from its cells to the outputs of both networks while it is in the cache; the table gradient alone
goes level by level, as in `ops/hash_grid`. Points and features are stored axis by axis (C N). Matrices are padded by
zeros, because the loops take four rows or columns at once. numba's cache watches this file alone: change it, too, where
what it imports from `ops/hash_grid/numba.py` changes.
"""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from zero123s.ops.encoded_networks.cone import Cone
from zero123s.ops.hash_grid import GradBuffer, HashGrid
from zero123s.ops.hash_grid.numba import BLOCK, Sizes, column, find_rows, read_rows, scatter
from zero123s.ops.kernels import launch

_ZERO, _ONE, _TINY = np.float32(0), np.float32(1), np.float32(1e-12)
_u32, _1, _FRONT = np.uint32, np.uint32(1), np.int64(0)
# A plain 0 as an argument would be a type of its own, for which everything is compiled once more.
_CONTRACT = {"contract", "nsz"}
"""Products and sums may be fused; the sign of a zero does not matter."""
_WORD = 32
"""Hidden units whose states are kept in one integer."""


@njit(fastmath=_CONTRACT)
def _multiply(weights, x, x_first, count, out, out_first):
    """Write weights x, of `count` columns of x from `x_first` on, to those of `out` from `out_first` on.

    Columns of `weights` beyond the rows of x are zero.
    """
    last, x_end = x.shape[0] - 1, x_first + count
    for h in range(0, out.shape[0], 2):
        y0, y1 = out[h, out_first : out_first + count], out[h + 1, out_first : out_first + count]
        y0[:] = _ZERO
        y1[:] = _ZERO
        for c in range(0, weights.shape[1], 4):
            x0, x1 = x[c, x_first:x_end], x[min(c + 1, last), x_first:x_end]
            x2, x3 = x[min(c + 2, last), x_first:x_end], x[min(c + 3, last), x_first:x_end]
            a0, a1, a2, a3 = weights[h, c], weights[h, c + 1], weights[h, c + 2], weights[h, c + 3]
            b0, b1, b2, b3 = weights[h + 1, c], weights[h + 1, c + 1], weights[h + 1, c + 2], weights[h + 1, c + 3]
            for n in range(count):
                y0[n] += a0 * x0[n] + a1 * x1[n] + a2 * x2[n] + a3 * x3[n]
                y1[n] += b0 * x0[n] + b1 * x1[n] + b2 * x2[n] + b3 * x3[n]


@njit(fastmath={"contract", "nsz", "reassoc"})
def _add_products(a, count, x, x_first, out):
    """Add a x^T, summed over `count` columns, to `out`; columns of `out` beyond the rows of x are without meaning."""
    last, x_end = x.shape[0] - 1, x_first + count
    for h in range(0, a.shape[0], 2):
        s0, s1 = a[h, :count], a[h + 1, :count]
        for c in range(0, out.shape[1], 4):
            x0, x1 = x[c, x_first:x_end], x[min(c + 1, last), x_first:x_end]
            x2, x3 = x[min(c + 2, last), x_first:x_end], x[min(c + 3, last), x_first:x_end]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = _ZERO
            for n in range(count):
                a0 += s0[n] * x0[n]
                a1 += s0[n] * x1[n]
                a2 += s0[n] * x2[n]
                a3 += s0[n] * x3[n]
                b0 += s1[n] * x0[n]
                b1 += s1[n] * x1[n]
                b2 += s1[n] * x2[n]
                b3 += s1[n] * x3[n]
            out[h, c] += a0
            out[h, c + 1] += a1
            out[h, c + 2] += a2
            out[h, c + 3] += a3
            out[h + 1, c] += b0
            out[h + 1, c + 1] += b1
            out[h + 1, c + 2] += b2
            out[h + 1, c + 3] += b3


@njit(fastmath=_CONTRACT)
def _interpolate(fraction, corners, count, scale, differentiate, out):
    """Fill, one behind the other, a feature and its derivatives by position, and those of the second one of a pair."""
    for n in range(count):
        x, y, z = fraction[n], fraction[BLOCK + n], fraction[2 * BLOCK + n]
        for f in range(2):
            m, to = 2 * n + f, 4 * f * BLOCK + n
            d0, d1, d2, d3 = corners[m], corners[m + 2 * BLOCK], corners[m + 4 * BLOCK], corners[m + 6 * BLOCK]
            m += 8 * BLOCK
            d4, d5, d6, d7 = corners[m], corners[m + 2 * BLOCK], corners[m + 4 * BLOCK], corners[m + 6 * BLOCK]
            e0, e1, e2, e3 = d1 - d0, d3 - d2, d5 - d4, d7 - d6
            l0, l1, l2, l3 = d0 + x * e0, d2 + x * e1, d4 + x * e2, d6 + x * e3
            f0, f1 = l1 - l0, l3 - l2
            p0 = l0 + y * f0
            g = l2 + y * f1 - p0
            out[to] = p0 + z * g
            if differentiate:
                h0 = e0 + y * (e1 - e0)
                out[to + BLOCK] = scale * (h0 + z * (e2 + y * (e3 - e2) - h0))
                out[to + 2 * BLOCK] = scale * (f0 + z * (f1 - f0))
                out[to + 3 * BLOCK] = scale * g


@njit(fastmath=_CONTRACT)
def _activate(hidden, weights, first, count, value, bits):
    """Sum the value of a block, and note which hidden units are on: as bits, and by ones in `hidden`."""
    out = value[first : first + count]
    out[:] = _ZERO
    for j in range(hidden.shape[0]):
        row, word, weight, bit = hidden[j], bits[j >> 5, first : first + count], weights[j], _u32(1 << (j & 31))
        for n in range(count):
            on = row[n] > _ZERO
            out[n] += weight * row[n] if on else _ZERO
            word[n] |= bit if on else _u32(0)
            row[n] = _ONE if on else _ZERO


@njit(fastmath=_CONTRACT)
def _chain(by_value, at, slopes, first, count, out):
    """Sum the value's gradient by position over the channels."""
    for axis in range(3):
        total = out[axis, first : first + count]
        total[:] = _ZERO
        for c in range(by_value.shape[0]):
            here = (4 * (c & 1) + axis + 1) * BLOCK
            factor, slope = by_value[c, at : at + count], slopes[c >> 1, here : here + count]
            for n in range(count):
                total[n] += factor[n] * slope[n]


@njit(fastmath=_CONTRACT)
def _add_cone(x, first, count, bias, with_gradient, value, gradient):
    """Add a + b |x| to the value, and its gradient to that by position, which is divided by the box's edge."""
    edge, _, a, b = bias
    vx, vy, vz = x[0, first : first + count], x[1, first : first + count], x[2, first : first + count]
    out = value[first : first + count]
    for n in range(count):
        out[n] += a + b * np.sqrt(vx[n] * vx[n] + vy[n] * vy[n] + vz[n] * vz[n] + _TINY)
    if with_gradient:
        for axis in range(3):
            slope, along = gradient[axis, first : first + count], x[axis, first : first + count]
            for n in range(count):
                length = np.sqrt(vx[n] * vx[n] + vy[n] * vy[n] + vz[n] * vz[n] + _TINY)
                slope[n] = slope[n] / edge + b * along[n] / length


@njit
def _copy(values, count, out):
    """Copy numbers; an assignment between slices takes two seconds to compile."""
    for n in range(count):
        out[n] = values[n]


@njit
def _part(part, n_parts, n_points):
    """Return the first point of a part and the one behind its last, whole blocks."""
    size = -(-n_points // (n_parts * BLOCK)) * BLOCK
    return part * size, min(n_points, (part + 1) * size)


@njit(cache=True, nogil=True)
def _run(part, n_parts, x, table, scales, sizes, value_net, feature_net, bias, flags, outputs):
    """Encode points and evaluate the networks, each with one hidden layer.

    `value_net`: the first matrix, the last one's only row, and the first one transposed times the last. `feature_net`:
    both matrices. `bias`: edge of the points' box, its middle in the unit cube, a and b. `flags`: features; what gradients
    need; the gradient by position. `outputs`: points in the unit cube; value; hidden units that are on, as bits; encoding;
    value's gradient by the encoding; features; value's gradient by position.
    """
    axes, value, bits, encoded, by_value, features, gradient = outputs
    with_features, trained, with_gradient = flags
    inside = np.empty((3, BLOCK), np.float32)
    n_pairs, n_channels = table.shape[1], table.shape[1] * 2 * scales.shape[0]
    fraction, rows = np.empty(3 * BLOCK, np.float32), np.empty(8 * BLOCK, np.uint32)
    corners, slopes = np.empty(8 * BLOCK, np.float64), np.empty((n_channels // 2, 8 * BLOCK), np.float32)
    block, by_block = np.empty((n_channels, BLOCK), np.float32), np.empty((n_channels, BLOCK), np.float32)
    hidden = np.empty((value_net[0].shape[0], BLOCK), np.float32)
    of_features = np.empty((feature_net[0].shape[0], BLOCK), np.float32)
    of_block = np.empty((feature_net[1].shape[0], BLOCK), np.float32)
    start, end = _part(part, n_parts, x.shape[1])
    for first in range(start, end, BLOCK):
        count = min(BLOCK, end - first)
        into, at = (encoded, first) if trained and with_features else (block, _FRONT)
        for axis in range(3):
            for n in range(count):
                inside[axis, n] = x[axis, first + n] / bias[0] + bias[1]
            if trained:
                _copy(inside[axis], count, axes[axis, first : first + count])
        for level in range(scales.shape[0]):
            resolution, offset, size, hashed = sizes[level]
            find_rows(inside, _FRONT, count, scales[level], resolution, size, hashed, n_pairs, fraction, rows)
            for pair in range(n_pairs):
                read_rows(column(table, offset, size, pair), count, rows, corners)
                c, both = level * n_pairs + pair, corners.view(np.float32)
                _interpolate(fraction, both, count, scales[level], with_gradient, slopes[c])
                _copy(slopes[c], count, into[2 * c, at : at + count])
                _copy(slopes[c, 4 * BLOCK :], count, into[2 * c + 1, at : at + count])
        _multiply(value_net[0], into, at, count, hidden, _FRONT)
        _activate(hidden, value_net[1], first, count, value, bits)
        if trained or with_gradient:
            by_values, to = (by_value, first) if trained else (by_block, _FRONT)
            _multiply(value_net[2], hidden, _FRONT, count, by_values, to)
            if with_gradient:
                _chain(by_values, to, slopes, first, count, gradient)
        _add_cone(x, first, count, bias, with_gradient, value, gradient)
        if with_features:
            _multiply(feature_net[0], into, at, count, of_features, _FRONT)
            _rectify(of_features, count)
            _multiply(feature_net[1], of_features, _FRONT, count, of_block, _FRONT)
            for k in range(features.shape[0]):
                _copy(of_block[k], count, features[k, first : first + count])


@njit
def _rectify(hidden, count):
    """Apply ReLU in place."""
    for j in range(hidden.shape[0]):
        for n in range(count):
            hidden[j, n] = max(hidden[j, n], _ZERO)


@njit
def _mask(grad, hidden, count):
    """Set the gradient by units that are off to zero."""
    for j in range(hidden.shape[0]):
        for n in range(count):
            grad[j, n] = grad[j, n] if hidden[j, n] > _ZERO else _ZERO


@njit(cache=True, nogil=True)
def _feature_sums(part, n_parts, encoded, grad, first_layer, by_encoding, by_hidden, grad_encoded, of_first, of_last):
    """Add up the gradients of the feature network's matrices, by parts, and write that of the encoding."""
    shape = first_layer.shape[0], BLOCK
    hidden, back = np.empty(shape, np.float32), np.empty(shape, np.float32)
    start, end = _part(part, n_parts, encoded.shape[1])
    for first in range(start, end, BLOCK):
        count = min(BLOCK, end - first)
        _multiply(first_layer, encoded, first, count, hidden, _FRONT)
        _rectify(hidden, count)
        _add_products(hidden, count, grad, first, of_last[part])
        _multiply(by_hidden, grad, first, count, back, _FRONT)
        _mask(back, hidden, count)
        _add_products(back, count, encoded, first, of_first[part])
        _multiply(by_encoding, back, _FRONT, count, grad_encoded, first)


@njit(cache=True, nogil=True)
def _value_gradients(part, n_parts, bits, tangent, sums):
    """Add up the products of units that are on and the tangent, by parts."""
    on = np.empty((sums.shape[1], BLOCK), np.float32)
    start, end = _part(part, n_parts, tangent.shape[1])
    for first in range(start, end, BLOCK):
        count = min(BLOCK, end - first)
        for j in range(on.shape[0]):
            row, word, shift = on[j], bits[j >> 5, first : first + count], _u32(j & 31)
            for n in range(count):
                row[n] = np.float32(np.int32((word[n] >> shift) & _1))
        _add_products(on, count, tangent, first, sums[part])


def evaluate(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "P F"],
    grid: HashGrid,
    value_net: Sequence[Tensor],
    feature_net: Sequence[Tensor],
    gradient: bool,
    keep: GradBuffer | None,
    cone: Cone | None,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N K"] | None, Float[Tensor, "N 3"] | None]:
    """Return a network's output on the encoding, another one's, and the first one's gradient by position.

    Args:
        x: N 3, points in the cone's box, or in [0, 1] without one; no gradient.
        table: P F, the features of all levels' grid points.
        grid: sizes of the levels.
        value_net: both matrices of the network with one output.
        feature_net: both matrices of the network with K outputs; none = no features.
        gradient: whether to return the gradient by position.
        keep: returns a buffer to add the table gradient to; None = autograd gets it.
        cone: what is added to the first network's output; None = nothing.

    Returns:
        Value N; features N K or None; gradient N 3 or None.
    """
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in (table, *value_net, *feature_net))
    found = _Evaluate.apply(x.detach(), table, grid, gradient, keep, cone, trained, *value_net, *feature_net)
    value, features, slope = found  # type: ignore[misc]
    return value, features.t() if feature_net else None, slope.t() if gradient else None


class _Evaluate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        table: Tensor,
        grid: HashGrid,
        gradient: bool,
        keep: GradBuffer | None,
        cone: Cone | None,
        trained: bool,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x, table = x.t().contiguous(), table.detach().contiguous()
        n, n_channels, featured = x.shape[1], grid.n_output_dims, len(weights) > 2

        def rows(count: int, used: bool) -> Tensor:
            return x.new_empty(count, n if used else 0)

        first, last = _padded(weights[0]), F.pad(weights[1].detach()[0], (0, -len(weights[0]) % 4))
        networks = (first, last, _padded((weights[0] * weights[1].t()).t())), _pair(weights[2:], x)
        bits = torch.zeros(-(-len(first) // _WORD), n, dtype=torch.uint32)
        encoded, by_value = rows(n_channels, featured and trained), rows(n_channels, trained)
        features, slope = rows(len(weights[3]) if featured else 0, True), rows(3, gradient)
        axes, value = rows(3, trained), x.new_empty(n)
        flags = featured, trained, gradient
        outputs = axes, value, bits, encoded, by_value, features, slope
        pairs = table.view(torch.float64)
        edge = 1.0 if cone is None else 2 * cone.radius
        bias = tuple(np.float32(v) for v in ((edge, 0, 0, 0) if cone is None else (edge, 0.5, cone.a, cone.b)))
        launch(_run, x, pairs, *Sizes.of(grid.levels), *map(_arrays, (*networks, bias, flags, outputs)))
        ctx.save_for_backward(axes, table, encoded, by_value, bits, *weights)
        ctx.levels, ctx.keep, ctx.edge = grid.levels, keep, edge
        ctx.set_materialize_grads(False)
        return value, features if featured else None, slope if gradient else None

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_value: Tensor | None, grad_features: Tensor | None, along: Tensor | None) -> tuple:  # type: ignore[override]
        axes, table, encoded, by_value, bits, *weights = ctx.saved_tensors
        factor = axes.new_zeros(axes.shape[1]) if grad_value is None else grad_value
        grad_encoded, grads = None, [torch.zeros_like(w) for w in weights[2:]]
        if grad_features is not None:
            grad_encoded, *grads = _feature_gradients(encoded, grad_features, weights[2], weights[3])
        grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table) if ctx.keep is None else ctx.keep()
        # A ReLU network is piecewise linear, so value and position gradient pass through the same layers: the gradients of
        # the weights are those of the value at `tangent`, the encoding times `factor` plus its derivative along `along`.
        # Likewise the value's gradient by the encoding is the one that the position gradient was chained from.
        along = None if along is None else along / ctx.edge
        tangent = scatter(axes, along, factor, by_value, grad_encoded, ctx.levels, table, grad_table)
        sums = axes.new_zeros(torch.get_num_threads(), *_padded(weights[0]).shape)
        launch(_value_gradients, bits, tangent, sums)
        first, last = weights[:2]
        of_units = sums.sum(0)[: len(first), : first.shape[1]]
        grads = [last.t() * of_units, (first * of_units).sum(1)[None], *grads]
        return (None, grad_table if ctx.keep is None else None, None, None, None, None, None, *grads)


def _feature_gradients(
    encoded: Float[Tensor, "C N"], grad: Float[Tensor, "K N"], first: Float[Tensor, "H C"], last: Float[Tensor, "K H"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the encoding, as the features' input, and of both matrices."""
    grad_encoded, n_parts = torch.empty_like(encoded), torch.get_num_threads()
    forward = _padded(first)
    of_first = encoded.new_zeros(n_parts, *forward.shape)
    of_last = encoded.new_zeros(n_parts, len(forward), -(-len(last) // 4) * 4)
    transposed = forward.t().contiguous(), _padded(last.t())
    launch(_feature_sums, encoded, grad, forward, *transposed, grad_encoded, of_first, of_last)
    sums = of_first.sum(0)[: len(first), : first.shape[1]], of_last.sum(0)[: last.shape[1], : len(last)].t()
    return grad_encoded, *sums


def _padded(matrix: Tensor) -> Tensor:
    """Return a matrix with zeros behind its rows and columns, up to multiples of four."""
    rows, columns = matrix.shape
    return F.pad(matrix.detach(), (0, -columns % 4, 0, -rows % 4)).contiguous()


def _pair(network: Sequence[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return both matrices padded; empty ones without a network."""
    return (_padded(network[0]), _padded(network[1])) if network else (like.new_empty(0, 0), like.new_empty(0, 0))


def _arrays(values: tuple) -> tuple:
    """Return tensors as arrays, for tuples that kernels take."""
    return tuple(v.numpy() if isinstance(v, Tensor) else v for v in values)
