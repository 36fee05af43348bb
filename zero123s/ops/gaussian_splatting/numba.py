"""Blending of 2D Gaussians on the CPU: tiles of pixels, each with its own depth-ordered list.

Every pair of a Gaussian and a tile has a place of its own for the gradients of the backward pass, which are summed in
the order of the pairs: results do not depend on the number of threads.
"""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from zero123s.ops.gaussian_splatting.projection import MIN_ALPHA, ScreenGaussians
from zero123s.ops.gaussian_splatting.reference import MAX_ALPHA, MIN_TRANSMITTANCE
from zero123s.ops.kernels import launch

TILE = 8
"""Edge of a tile in pixels."""
PIXELS = TILE * TILE
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_SIXTEENTH, _LARGEST_POWER = np.float32(1 / 16), np.float32(6)
"""Of the power: at 6 the opacity is below MIN_ALPHA."""
_C2, _C3, _C4, _C5, _C6 = (np.float32(1 / n) for n in (2, 3, 4, 5, 6))
_MIN_ALPHA, _MAX_ALPHA, _STOP = np.float32(MIN_ALPHA), np.float32(MAX_ALPHA), np.float32(MIN_TRANSMITTANCE)


@njit(cache=True, nogil=True)
def _tile_span(center, half_extent, n_tiles):
    """First tile and the one after the last that have a pixel centre within the interval, along one axis."""
    first = math.ceil(center - half_extent - _HALF)  # the pixel whose centre is the first inside
    last = math.floor(center + half_extent - _HALF)
    if last < 0 or last < first:
        return 0, 0
    return max(0, int(first) // TILE), min(n_tiles, int(last) // TILE + 1)


@njit(cache=True, nogil=True)
def _count_pairs(order, means, extents, tiles_x, tiles_y, first_pair, per_tile):
    """Number the pairs of Gaussians (nearest first) and tiles."""
    n = 0
    for k in range(order.shape[0]):
        g = order[k]
        first_pair[k] = n
        x0, x1 = _tile_span(means[g, 0], extents[g, 0], tiles_x)
        y0, y1 = _tile_span(means[g, 1], extents[g, 1], tiles_y)
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                per_tile[ty * tiles_x + tx] += 1
        n += (x1 - x0) * (y1 - y0)
    first_pair[order.shape[0]] = n
    return n


@njit(cache=True, nogil=True)
def _fill_tiles(order, means, extents, tiles_x, tiles_y, next_place, tile_pairs, tile_ranks):
    """Write each tile's pairs, which stay in depth order because the Gaussians come nearest first."""
    pair = 0
    for k in range(order.shape[0]):
        g = order[k]
        x0, x1 = _tile_span(means[g, 0], extents[g, 0], tiles_x)
        y0, y1 = _tile_span(means[g, 1], extents[g, 1], tiles_y)
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                place = next_place[ty * tiles_x + tx]
                next_place[ty * tiles_x + tx] = place + 1
                tile_pairs[place] = pair
                tile_ranks[place] = k
                pair += 1


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"})
def _falloff(packed, k, x, y, falloff, alpha):
    """Write exp(-power) and the opacity of Gaussian k at the pixels of a tile; 0 where it adds nothing.

    The exponential is a polynomial of power / 16, squared four times: with a fixed number of turns, that is vectorised.
    """
    u, v, opacity, limit = packed[k, 0], packed[k, 1], packed[k, 5], packed[k, 6]
    xx, xy, yy = _HALF * packed[k, 2], packed[k, 3], _HALF * packed[k, 4]
    for i in range(PIXELS):
        dx, dy = x[i] - u, y[i] - v
        power = xx * dx * dx + yy * dy * dy + xy * dx * dy
        t = min(max(power, _ZERO), _LARGEST_POWER) * _SIXTEENTH
        e = _ONE - t * (_ONE - _C2 * t * (_ONE - _C3 * t * (_ONE - _C4 * t * (_ONE - _C5 * t * (_ONE - _C6 * t)))))
        e *= e
        e *= e
        e *= e
        e *= e
        falloff[i] = e
        a = min(_MAX_ALPHA, opacity * e)
        alpha[i] = a if power <= limit and a >= _MIN_ALPHA else _ZERO


@njit(cache=True, nogil=True)
def _pixel_centers(tile, tiles_x, x, y):
    """Write the pixel centres of a tile, row by row; return its first column and row."""
    x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
    for i in range(PIXELS):
        x[i] = np.float32(x0 + i % TILE) + _HALF
        y[i] = np.float32(y0 + i // TILE) + _HALF
    return x0, y0


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"})
def _forward(part, n_parts, tiles_x, tile_start, tile_ranks, packed, values, summed, left, n_read):
    """Blend the tiles of one part, all pixels of a tile at once.

    `packed` has u, v, xx, xy, yy, opacity and the largest power of the Gaussians, nearest first;
    `n_read` gets the number of the tile's Gaussians after which a pixel's light is gone or nothing is added.
    """
    height, width, n_values = summed.shape
    rows = np.empty((6, PIXELS), np.float32)
    x, y, falloff, alpha, transmittance, weight = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    last, total = np.empty(PIXELS, np.int32), np.empty((n_values, PIXELS), np.float32)
    for tile in range(part, tile_start.shape[0] - 1, n_parts):
        x0, y0 = _pixel_centers(tile, tiles_x, x, y)
        transmittance[:], last[:], total[:] = _ONE, 0, _ZERO
        begin, end = tile_start[tile], tile_start[tile + 1]
        for place in range(begin, end):
            if (place - begin) % 16 == 15 and transmittance.max() < _STOP:
                break
            k = tile_ranks[place]
            _falloff(packed, k, x, y, falloff, alpha)
            number = np.int32(place - begin + 1)
            for i in range(PIXELS):
                a = alpha[i] if transmittance[i] >= _STOP else _ZERO
                weight[i] = transmittance[i] * a
                transmittance[i] *= _ONE - a
                last[i] = number if a > _ZERO else last[i]
            for c in range(n_values):
                value, row = values[k, c], total[c]
                for i in range(PIXELS):
                    row[i] += weight[i] * value
        for i in range(PIXELS):
            row, column = y0 + i // TILE, x0 + i % TILE
            if row < height and column < width:
                left[row, column], n_read[row, column] = transmittance[i], last[i]
                for c in range(n_values):
                    summed[row, column, c] = total[c, i]


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp", "reassoc"})
def _moments(pull, falloff, grad_alpha, x, y, u, v):
    """Sum the gradients of one Gaussian over pixels: opacity, then the power's by dx, dy, dx^2, dx dy and dy^2."""
    opacity = sx = sy = sxx = sxy = syy = _ZERO
    for i in range(PIXELS):
        dx, dy, g = x[i] - u, y[i] - v, pull[i]
        opacity += falloff[i] * grad_alpha[i]
        sx += g * dx
        sy += g * dy
        sxx += g * dx * dx
        sxy += g * dx * dy
        syy += g * dy * dy
    return opacity, sx, sy, sxx, sxy, syy


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp", "reassoc"})
def _dot(a, b):
    total = _ZERO
    for i in range(PIXELS):
        total += a[i] * b[i]
    return total


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"})
def _backward(
    part, n_parts, tiles_x, tile_start, tile_pairs, tile_ranks, packed, values, images, grads, grad_packed, grad_values
):
    """Walk back along each tile's list; `behind` is the gradient with respect to the light that passes a Gaussian."""
    left, n_read = images
    grad_summed, grad_left = grads
    height, width, n_values = grad_summed.shape
    rows = np.empty((10, PIXELS), np.float32)
    x, y, falloff, alpha, transmittance = rows[0], rows[1], rows[2], rows[3], rows[4]
    behind, weight, earned, pull, grad_alpha = rows[5], rows[6], rows[7], rows[8], rows[9]
    last, grad = np.empty(PIXELS, np.int32), np.empty((n_values, PIXELS), np.float32)
    for tile in range(part, tile_start.shape[0] - 1, n_parts):
        x0, y0 = _pixel_centers(tile, tiles_x, x, y)
        for i in range(PIXELS):
            row, column = y0 + i // TILE, x0 + i % TILE
            inside = row < height and column < width
            transmittance[i] = left[row, column] if inside else _ONE
            behind[i] = grad_left[row, column] if inside else _ZERO
            last[i] = n_read[row, column] if inside else 0
            for c in range(n_values):
                grad[c, i] = grad_summed[row, column, c] if inside else _ZERO
        begin = tile_start[tile]
        for place in range(begin + last.max() - 1, begin - 1, -1):
            k, pair, number = tile_ranks[place], tile_pairs[place], np.int32(place - begin + 1)
            _falloff(packed, k, x, y, falloff, alpha)
            for i in range(PIXELS):
                alpha[i] = alpha[i] if number <= last[i] else _ZERO
                transmittance[i] /= _ONE - alpha[i]
                weight[i] = transmittance[i] * alpha[i]
                earned[i] = _ZERO
            for c in range(n_values):
                value, row = values[k, c], grad[c]
                for i in range(PIXELS):
                    earned[i] += value * row[i]
                grad_values[pair, c] = _dot(weight, row)
            opacity = packed[k, 5]
            for i in range(PIXELS):
                a = alpha[i]
                g = transmittance[i] * (earned[i] - behind[i])
                behind[i] = a * earned[i] + (_ONE - a) * behind[i]
                # Beyond the largest opacity nothing changes with it.
                grad_alpha[i] = g if a > _ZERO and opacity * falloff[i] <= _MAX_ALPHA else _ZERO
                pull[i] = -a * grad_alpha[i]
            by_opacity, sx, sy, sxx, sxy, syy = _moments(pull, falloff, grad_alpha, x, y, packed[k, 0], packed[k, 1])
            grad_packed[pair, 0] = -(packed[k, 2] * sx + packed[k, 3] * sy)
            grad_packed[pair, 1] = -(packed[k, 4] * sy + packed[k, 3] * sx)
            grad_packed[pair, 2], grad_packed[pair, 3], grad_packed[pair, 4] = _HALF * sxx, sxy, _HALF * syy
            grad_packed[pair, 5] = by_opacity


@njit(cache=True, nogil=True)
def _sum_pairs(part, n_parts, first_pair, pair_grads, grads):
    """Sum the gradients of each Gaussian's pairs, in their order."""
    for k in range(part, grads.shape[0], n_parts):
        for pair in range(first_pair[k], first_pair[k + 1]):
            for c in range(grads.shape[1]):
                grads[k, c] += pair_grads[pair, c]


class _Tiles:
    """Which Gaussians each tile of one view blends, nearest first."""

    def __init__(self, means: np.ndarray, extents: np.ndarray, order: np.ndarray, height: int, width: int) -> None:
        self.tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
        self.first_pair = np.empty(len(order) + 1, np.int64)
        per_tile = np.zeros(self.tiles_x * tiles_y, np.int64)
        n_pairs = _count_pairs(order, means, extents, self.tiles_x, tiles_y, self.first_pair, per_tile)
        self.start = np.concatenate([np.zeros(1, np.int64), np.cumsum(per_tile)])
        self.pairs, self.ranks = np.empty(n_pairs, np.int64), np.empty(n_pairs, np.int64)
        _fill_tiles(order, means, extents, self.tiles_x, tiles_y, self.start[:-1].copy(), self.pairs, self.ranks)


class _BlendView(torch.autograd.Function):
    """One view; Gaussians come nearest first in `packed` (u, v, xx, xy, yy, opacity) and `values`."""

    @staticmethod
    def forward(ctx, packed: Tensor, values: Tensor, tiles: _Tiles, height: int, width: int):  # type: ignore[override]
        # The power beyond which the opacity is below MIN_ALPHA, with some slack for rounding: spares the exponential.
        limit = torch.log(packed[:, 5:] / MIN_ALPHA).clamp_min(0) + 1e-3
        packed = torch.cat([packed, limit], dim=1)
        summed, left = values.new_zeros(height, width, values.shape[1]), values.new_empty(height, width)
        n_read = torch.empty(height, width, dtype=torch.int32)
        launch(_forward, tiles.tiles_x, tiles.start, tiles.ranks, packed, values, summed, left, n_read)
        ctx.tiles = tiles
        ctx.save_for_backward(packed, values, left, n_read)
        return summed, left

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_summed: Tensor, grad_left: Tensor):  # type: ignore[override]
        packed, values, left, n_read = ctx.saved_tensors
        tiles: _Tiles = ctx.tiles
        pair_grads = torch.zeros(len(tiles.pairs), 6), torch.zeros(len(tiles.pairs), values.shape[1])
        images = left.numpy(), n_read.numpy()
        grads = grad_summed.contiguous().numpy(), grad_left.contiguous().numpy()
        lists = (tiles.tiles_x, tiles.start, tiles.pairs, tiles.ranks)
        launch(_backward, *lists, packed.contiguous(), values, images, grads, *pair_grads)
        grad_packed, grad_values = torch.zeros(len(packed), 6), torch.zeros_like(values)
        launch(_sum_pairs, tiles.first_pair, pair_grads[0], grad_packed)
        launch(_sum_pairs, tiles.first_pair, pair_grads[1], grad_values)
        return grad_packed, grad_values, None, None, None


def blend(
    gaussians: ScreenGaussians, opacities: Tensor, values: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Blend float32 CPU Gaussians as the reference does."""
    summed, covered = [], []
    for means, conics, depths, extents, view_values in zip(
        gaussians.means, gaussians.conics, gaussians.depths, gaussians.half_extents, values, strict=True
    ):
        chosen = (extents > 0).all(-1).nonzero()[:, 0]
        order = chosen[torch.sort(depths[chosen].detach(), stable=True).indices]
        tiles = _Tiles(means.detach().numpy(), extents.numpy(), order.numpy(), height, width)
        packed = torch.cat([means[order], conics[order], opacities[order, None]], dim=1)
        image, left = _BlendView.apply(packed, view_values[order].contiguous(), tiles, height, width)  # type: ignore[misc]
        summed.append(image)
        covered.append(1 - left[..., None])
    return torch.stack(summed), torch.stack(covered)
