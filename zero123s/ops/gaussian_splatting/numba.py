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
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
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
def _forward(part, n_parts, tiles_x, tile_start, tile_ranks, packed, values, summed, left, n_read):
    """Blend the tiles of one part; `packed` has u, v, xx, xy, yy, opacity of the Gaussians, nearest first."""
    height, width, n_values = summed.shape
    for tile in range(part, tile_start.shape[0] - 1, n_parts):
        y0, x0 = (tile // tiles_x) * TILE, (tile % tiles_x) * TILE
        begin, end = tile_start[tile], tile_start[tile + 1]
        for y in range(y0, min(y0 + TILE, height)):
            for x in range(x0, min(x0 + TILE, width)):
                transmittance = _ONE
                u, v = np.float32(x) + _HALF, np.float32(y) + _HALF
                place = begin
                while place < end and transmittance >= _STOP:
                    k = tile_ranks[place]
                    place += 1
                    dx, dy = u - packed[k, 0], v - packed[k, 1]
                    power = _HALF * (packed[k, 2] * dx * dx + packed[k, 4] * dy * dy) + packed[k, 3] * dx * dy
                    if power > packed[k, 6]:
                        continue
                    alpha = min(_MAX_ALPHA, packed[k, 5] * np.float32(math.exp(-power)))
                    if alpha < _MIN_ALPHA:
                        continue
                    weight = transmittance * alpha
                    for c in range(n_values):
                        summed[y, x, c] += weight * values[k, c]
                    transmittance *= _ONE - alpha
                left[y, x] = transmittance
                n_read[y, x] = place - begin


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"})
def _backward(
    part, n_parts, tiles_x, tile_start, tile_pairs, tile_ranks, packed, values, images, grads, grad_packed, grad_values
):
    """Walk back along each pixel's list; `behind` is the gradient with respect to the light that passes a Gaussian."""
    left, n_read = images
    grad_summed, grad_left = grads
    height, width, n_values = grad_summed.shape
    for tile in range(part, tile_start.shape[0] - 1, n_parts):
        y0, x0 = (tile // tiles_x) * TILE, (tile % tiles_x) * TILE
        begin = tile_start[tile]
        for y in range(y0, min(y0 + TILE, height)):
            for x in range(x0, min(x0 + TILE, width)):
                u, v = np.float32(x) + _HALF, np.float32(y) + _HALF
                transmittance, behind = left[y, x], grad_left[y, x]
                for place in range(begin + n_read[y, x] - 1, begin - 1, -1):
                    k = tile_ranks[place]
                    dx, dy = u - packed[k, 0], v - packed[k, 1]
                    power = _HALF * (packed[k, 2] * dx * dx + packed[k, 4] * dy * dy) + packed[k, 3] * dx * dy
                    if power > packed[k, 6]:
                        continue
                    falloff = np.float32(math.exp(-power))
                    raw = packed[k, 5] * falloff
                    alpha = min(_MAX_ALPHA, raw)
                    if alpha < _MIN_ALPHA:
                        continue
                    pair = tile_pairs[place]
                    transmittance /= _ONE - alpha
                    weight = transmittance * alpha
                    earned = _ZERO
                    for c in range(n_values):
                        earned += grad_summed[y, x, c] * values[k, c]
                        grad_values[pair, c] += weight * grad_summed[y, x, c]
                    grad_alpha = transmittance * (earned - behind)
                    behind = alpha * earned + (_ONE - alpha) * behind
                    if raw > _MAX_ALPHA:
                        continue
                    grad_packed[pair, 5] += falloff * grad_alpha
                    grad_power = -alpha * grad_alpha
                    grad_packed[pair, 0] -= grad_power * (packed[k, 2] * dx + packed[k, 3] * dy)
                    grad_packed[pair, 1] -= grad_power * (packed[k, 4] * dy + packed[k, 3] * dx)
                    grad_packed[pair, 2] += grad_power * _HALF * dx * dx
                    grad_packed[pair, 3] += grad_power * dx * dy
                    grad_packed[pair, 4] += grad_power * _HALF * dy * dy


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
        n_read = torch.empty(height, width, dtype=torch.int64)
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
