"""Blending of 2D Gaussians on CUDA in Triton: one program per tile of 8 x 8 pixels, which walks along its own list.

Plain torch makes the lists: the Gaussians of all views, nearest first, are repeated for every tile that they reach and
sorted by tile. Every pair of a Gaussian and a tile has a place of its own for the gradients, which are summed in the order
of the pairs: no atomic additions, the same result every time.
"""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.ops.gaussian_splatting.projection import MIN_ALPHA, ScreenGaussians
from zero123s.ops.gaussian_splatting.reference import MAX_ALPHA, MIN_TRANSMITTANCE
from zero123s.ops.gpu_kernels import launch

TILE = 8
"""Edge of a tile in pixels. With one warp a tile, sums over its pixels need no shared memory."""
_CHUNK = 16
"""Gaussians between two looks at whether any light is left."""


@triton.jit
def _pixels(tiles_x, tiles_y, height, width, TILE: tl.constexpr):
    """Return the pixel centres of a program's tile, their places in the images and which are inside."""
    tile, i = tl.program_id(0), tl.arange(0, TILE * TILE)
    view, in_view = tile // (tiles_x * tiles_y), tile % (tiles_x * tiles_y)
    column, row = (in_view % tiles_x) * TILE + i % TILE, (in_view // tiles_x) * TILE + i // TILE
    pixel = (view.to(tl.int64) * height + row) * width + column
    return column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5, pixel, (row < height) & (column < width)


@triton.jit
def _opacity_at(packed, place, x, y, least, most):
    """Return a Gaussian's conic, opacity, distances to pixels, its fall-off there, and the opacities that count."""
    at = packed + 6 * place
    dx, dy = x - tl.load(at), y - tl.load(at + 1)
    xx, xy, yy, opacity = tl.load(at + 2), tl.load(at + 3), tl.load(at + 4), tl.load(at + 5)
    falloff = tl.exp(-(0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy))
    alpha = tl.minimum(opacity * falloff, most)
    return xx, xy, yy, opacity, dx, dy, falloff, tl.where(alpha >= least, alpha, 0.0)


@triton.jit(do_not_specialize=["tiles_x", "tiles_y", "height", "width"])
def _forward(
    start, packed, values, summed, left, n_read, tiles_x, tiles_y, height, width, least, most, stop,
    C: tl.constexpr, CHANNELS: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Blend a tile; `n_read` gets how many of its Gaussians a pixel reads until the last that adds something."""
    tile, c = tl.program_id(0), tl.arange(0, CHANNELS)
    x, y, pixel, inside = _pixels(tiles_x, tiles_y, height, width, TILE)
    first = tl.load(start + tile)
    count = (tl.load(start + tile + 1) - first).to(tl.int32)
    light, last = tl.where(inside, 1.0, 0.0), tl.zeros((TILE * TILE,), tl.int32)
    total = tl.zeros((TILE * TILE, CHANNELS), tl.float32)
    base = 0
    while (base < count) & (tl.max(light, 0) >= stop):
        for k in range(base, tl.minimum(base + CHUNK, count)):
            _, _, _, _, _, _, _, alpha = _opacity_at(packed, first + k, x, y, least, most)
            alpha = tl.where(light >= stop, alpha, 0.0)
            value = tl.load(values + (first + k) * C + c, mask=c < C, other=0.0)
            total += (light * alpha)[:, None] * value[None, :]
            light *= 1.0 - alpha
            last = tl.where(alpha > 0, k + 1, last)
        base += CHUNK
    tl.store(summed + pixel[:, None] * C + c[None, :], total, mask=inside[:, None] & (c < C)[None, :])
    tl.store(left + pixel, light, mask=inside)
    tl.store(n_read + pixel, last, mask=inside)


@triton.jit(do_not_specialize=["tiles_x", "tiles_y", "height", "width"])
def _backward(
    start, packed, values, left, n_read, grad_summed, grad_left, places, grad_packed, grad_values,
    tiles_x, tiles_y, height, width, least, most, C: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Walk back along a tile's list; `behind` is the gradient with respect to the light that passes a Gaussian."""
    tile = tl.program_id(0)
    x, y, pixel, inside = _pixels(tiles_x, tiles_y, height, width, TILE)
    first = tl.load(start + tile)
    light, last = tl.load(left + pixel, mask=inside, other=1.0), tl.load(n_read + pixel, mask=inside, other=0)
    behind = tl.load(grad_left + pixel, mask=inside, other=0.0)
    count = tl.max(last, 0)
    for step in range(0, count):
        k = count - 1 - step
        xx, xy, yy, opacity, dx, dy, falloff, alpha = _opacity_at(packed, first + k, x, y, least, most)
        alpha = tl.where(k < last, alpha, 0.0)
        light = light / (1.0 - alpha)
        to, earned = tl.load(places + first + k), tl.zeros((TILE * TILE,), tl.float32)
        for c in tl.static_range(C):
            grad = tl.load(grad_summed + pixel * C + c, mask=inside, other=0.0)
            earned += tl.load(values + (first + k) * C + c) * grad
            tl.store(grad_values + to * C + c, tl.sum(light * alpha * grad, 0))
        by_alpha = light * (earned - behind)
        behind = alpha * earned + (1.0 - alpha) * behind
        # Beyond the largest opacity nothing changes with it.
        by_alpha = tl.where((alpha > 0) & (opacity * falloff <= most), by_alpha, 0.0)
        by_power = -alpha * by_alpha
        sx, sy = tl.sum(by_power * dx, 0), tl.sum(by_power * dy, 0)
        tl.store(grad_packed + 6 * to, -(xx * sx + xy * sy))
        tl.store(grad_packed + 6 * to + 1, -(yy * sy + xy * sx))
        tl.store(grad_packed + 6 * to + 2, 0.5 * tl.sum(by_power * dx * dx, 0))
        tl.store(grad_packed + 6 * to + 3, tl.sum(by_power * dx * dy, 0))
        tl.store(grad_packed + 6 * to + 4, 0.5 * tl.sum(by_power * dy * dy, 0))
        tl.store(grad_packed + 6 * to + 5, tl.sum(falloff * by_alpha, 0))


@dataclass(frozen=True)
class _Tiles:
    """Which Gaussians each tile of all views blends, nearest first."""

    size: tuple[int, int, int, int]
    """Tiles along x and y of a view, and its height and width in pixels."""
    counts: Int[Tensor, "M"]
    """Tiles that each of the views' M Gaussians reaches, 0 for those that do not show; its pairs follow one another."""
    start: Int[Tensor, "T+1"]
    """Of each tile's list among all lists."""
    order: Int[Tensor, "P"]
    """The pair at each place of the lists."""
    gaussian: Int[Tensor, "P"]
    """The Gaussian at each place of the lists."""


def _tile_span(center: Tensor, half_extent: Tensor, n_tiles: int) -> tuple[Tensor, Tensor]:
    """Return the first tile and the number of tiles that have a pixel centre within the interval, along one axis."""
    first = (center - half_extent - 0.5).ceil().clamp(0, n_tiles * TILE)
    last = (center + half_extent - 0.5).floor().clamp(-1, n_tiles * TILE - 1)
    begin, end = first.long() // TILE, last.long() // TILE + 1
    return begin, torch.where(last >= first, end - begin, 0)


def _list_tiles(
    means: Float[Tensor, "M 2"],
    extents: Float[Tensor, "M 2"],
    view: Int[Tensor, "M"],
    n_views: int,
    height: int,
    width: int,
) -> _Tiles:
    """Return the lists of Gaussians that come nearest first; waits for the GPU once, for the number of pairs."""
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    (x0, nx), (y0, ny) = (_tile_span(means[:, a], extents[:, a], n) for a, n in enumerate((tiles_x, tiles_y)))
    counts = torch.where((extents > 0).all(-1), nx * ny, 0)
    n_pairs, ends = int(counts.sum()), counts.cumsum(0)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts, output_size=n_pairs)
    within = torch.arange(n_pairs, device=counts.device) - (ends - counts)[owner]
    row, column = within // nx[owner], within % nx[owner]
    tile = (view[owner] * tiles_y + y0[owner] + row) * tiles_x + x0[owner] + column
    tile, order = torch.sort(tile, stable=True)
    start = torch.searchsorted(tile, torch.arange(n_views * tiles_y * tiles_x + 1, device=tile.device))
    return _Tiles((tiles_x, tiles_y, height, width), counts, start, order, owner[order])


class _Blend(torch.autograd.Function):
    """All views; Gaussians come nearest first in `packed` (u, v, xx, xy, yy, opacity) and `values`."""

    @staticmethod
    def forward(ctx, packed: Tensor, values: Tensor, tiles: _Tiles, n_views: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        _, _, height, width = tiles.size
        n_values = values.shape[1]
        channels = triton.next_power_of_2(max(n_values, 1))
        # In the order of the lists: a program then reads one stretch of memory.
        inputs = (tiles.start, packed[tiles.gaussian], values[tiles.gaussian])
        summed, left = values.new_empty(n_views, height, width, n_values), values.new_empty(n_views, height, width)
        n_read = torch.empty(n_views, height, width, dtype=torch.int32, device=values.device)
        limits = MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE
        grid = (len(tiles.start) - 1,)
        outputs, constants = (summed, left, n_read), (n_values, channels, TILE, _CHUNK)
        launch(_forward, grid, *inputs, *outputs, *tiles.size, *limits, *constants, num_warps=1)
        ctx.tiles = tiles
        ctx.save_for_backward(*inputs, left, n_read)
        return summed, left

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_summed: Tensor, grad_left: Tensor) -> tuple:  # type: ignore[override]
        tiles: _Tiles = ctx.tiles
        start, packed, values, *images = ctx.saved_tensors
        given = grad_summed.contiguous(), grad_left.contiguous()
        pairs = (
            torch.zeros_like(packed),
            torch.zeros_like(values),
        )  # of Gaussians behind the last light nothing is written
        arguments = (start, packed, values, *images, *given, tiles.order, *pairs, *tiles.size, MIN_ALPHA, MAX_ALPHA)
        launch(_backward, (len(start) - 1,), *arguments, values.shape[1], TILE, num_warps=1)
        grads = (torch.segment_reduce(p, "sum", lengths=tiles.counts, axis=0, unsafe=True) for p in pairs)
        return (*grads, None, None)


def blend(
    gaussians: ScreenGaussians, opacities: Tensor, values: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Blend float32 Gaussians as the reference does, all views at once."""
    n_views = len(values)
    order = torch.sort(gaussians.depths.detach().flatten(), stable=True).indices
    view, own = order // len(opacities), order % len(opacities)
    means = gaussians.means.flatten(0, 1)[order]
    packed = torch.cat([means, gaussians.conics.flatten(0, 1)[order], opacities[own, None]], dim=1)
    tiles = _list_tiles(means.detach(), gaussians.half_extents.flatten(0, 1)[order], view, n_views, height, width)
    summed, left = _Blend.apply(packed, values.float().flatten(0, 1)[order], tiles, n_views)  # type: ignore[misc]
    return summed, 1 - left[..., None]
