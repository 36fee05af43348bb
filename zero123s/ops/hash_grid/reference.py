"""Plain-torch hash encoding: the definition that every faster backend is tested against."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.ops.constants import constant

GradBuffer = Callable[[], Tensor]
"""Returns the buffer, shaped as the table, to which a backend may add the table gradient instead of returning it."""
_PRIMES = (1, 2654435761, 805459861)
_UINT32 = 0xFFFFFFFF
CORNERS_AT_ONCE = 1 << 26
"""Of all levels together on a GPU: about 30 bytes each."""


class Level(NamedTuple):
    """One level of the grid."""

    scale: float
    resolution: int
    offset: int
    size: int
    hashed: bool


class _Gather(torch.autograd.Function):
    """Rows of two numbers, read and added as one complex number each.

    On a CPU that is 9 times faster than gathering rows and 20 times faster than adding to them.
    """

    @staticmethod
    def forward(ctx, rows: Float[Tensor, "P 2"], index: Int[Tensor, "K"]) -> Float[Tensor, "K 2"]:
        ctx.save_for_backward(index)
        ctx.n_rows = rows.shape[0]
        return torch.view_as_real(torch.view_as_complex(rows).index_select(0, index))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:  # type: ignore[override]
        return _Scatter.apply(grad, ctx.saved_tensors[0], ctx.n_rows), None


class _Scatter(torch.autograd.Function):
    """The transpose of `_Gather`, so that each is the other's derivative."""

    @staticmethod
    def forward(ctx, values: Float[Tensor, "K 2"], index: Int[Tensor, "K"], n_rows: int) -> Float[Tensor, "P 2"]:
        ctx.save_for_backward(index)
        rows = values.new_zeros(n_rows, 2)
        torch.view_as_complex(rows).index_add_(0, index, torch.view_as_complex(values.contiguous()))
        return rows

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:  # type: ignore[override]
        return _Gather.apply(grad.contiguous(), ctx.saved_tensors[0]), None, None


def gather_rows(table: Float[Tensor, "P F"], index: Int[Tensor, "K"]) -> Float[Tensor, "K F"]:
    """Return `table[index]`, differentiable any number of times.

    Args:
        table: P F.
        index: K, row numbers.

    Returns:
        K F.
    """
    n_features = table.shape[1]
    if table.device.type != "cpu" or n_features % 2:
        return table.index_select(0, index)
    pairs = n_features // 2
    if pairs > 1:
        index = (index[:, None] * pairs + torch.arange(pairs)).flatten()
    return _Gather.apply(table.reshape(-1, 2), index).reshape(-1, n_features)  # type: ignore[union-attr]


def corner_rows(base: Int[Tensor, "3 G N"], levels: tuple[Level, ...]) -> Int[Tensor, "G 8 N"]:
    """Return the table rows of the corners of cells, in tiny-cuda-nn's unsigned 32-bit arithmetic.

    Corner c lies one further along z, y and x where the bits 1, 2 and 4 of c are set.

    Args:
        base: 3 G N, lowest node of the cell of N points on G levels.
        levels: the G levels, of one grid and in its order.

    Returns:
        G 8 N, rows counted from the start of each level.
    """
    factors = [_PRIMES if level.hashed else (1, level.resolution, level.resolution**2) for level in levels]
    x, y, z = torch.stack([base, base + 1], dim=2) & _UINT32  # each G 2 N
    y = y * constant([factor[1] for factor in factors], base)[:, None, None]
    z = z * constant([factor[2] for factor in factors], base)[:, None, None]
    x, y, z = x[:, :, None, None], y[:, None, :, None], z[:, None, None]
    n_dense = sum(not level.hashed for level in levels)
    if n_dense == 0:
        return _hashed_rows(x, y, z, levels[0].size).flatten(1, 3)
    sizes = constant([level.size for level in levels[:n_dense]], base)[:, None, None, None, None]
    rows = ((x[:n_dense] + (y[:n_dense] + z[:n_dense])) & _UINT32) % sizes
    if n_dense < len(levels):
        hashed = _hashed_rows(x[n_dense:], y[n_dense:], z[n_dense:], levels[-1].size)
        rows = torch.cat([rows, hashed])
    return rows.flatten(1, 3)


def _hashed_rows(x: Tensor, y: Tensor, z: Tensor, size: int) -> Tensor:
    """Return rows of hashed levels, which all have one power of two of rows, so that the lower bits are all that
    counts.
    """
    return (x ^ (y ^ z)) & (size - 1)


def groups_of_levels(levels: tuple[Level, ...], n_points: int, device: torch.device) -> list[tuple[Level, ...]]:
    """Group consecutive levels that are encoded together.

    On a CPU a group is one level, which fits into its cache; on a GPU it is as large as memory allows, because launches
    are what costs time there.

    Args:
        levels: all levels.
        n_points: points that are encoded at once.
        device: where.

    Returns:
        The levels in their order.
    """
    most = 1 if device.type == "cpu" else max(1, CORNERS_AT_ONCE // (8 * max(n_points, 1)))
    return [levels[i : i + most] for i in range(0, len(levels), most)]


def encode(x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], levels: tuple[Level, ...]) -> Float[Tensor, "N LF"]:
    """Interpolate trilinearly on every level; see `zero123s.ops.hash_grid.encode`.

    Args:
        x: N 3, points in [0, 1].
        table: P F, the features of all levels' grid points.
        levels: all levels.

    Returns:
        N L*F, level by level; differentiable any number of times.
    """
    axes = x.t().contiguous()
    groups = groups_of_levels(levels, len(x), x.device)
    if len(groups) == 1:
        return _interpolate(axes, table, levels)
    # Split once and gather once per group: every gather's gradient is a buffer as large as what it reads from.
    tables = table.split([sum(level.size for level in group) for group in groups])
    features = [_interpolate(axes, rows, group) for rows, group in zip(tables, groups, strict=True)]
    return torch.cat(features, dim=-1)


def _interpolate(
    axes: Float[Tensor, "3 N"], table: Float[Tensor, "P F"], levels: tuple[Level, ...]
) -> Float[Tensor, "N GF"]:
    """Interpolate on the levels of one group, whose rows are `table`."""
    position = axes[:, None] * constant([level.scale for level in levels], axes)[:, None] + 0.5
    base = torch.floor(position).detach()
    fraction = position - base
    wx, wy, wz = torch.stack([1.0 - fraction, fraction], dim=2)  # each G 2 N
    weights = (wx[:, :, None, None] * (wy[:, None, :, None] * wz[:, None, None])).flatten(1, 3)
    index = corner_rows(base.long(), levels)
    if len(levels) > 1:
        index = index + constant([level.offset - levels[0].offset for level in levels], index)[:, None, None]
    values = gather_rows(table, index.flatten()).view(len(levels), 8, -1, table.shape[1])
    return (weights[..., None] * values).sum(dim=1).movedim(0, 1).flatten(1)


def position_gradient(
    x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], grad: Float[Tensor, "N LF"], levels: tuple[Level, ...]
) -> Float[Tensor, "N 3"]:
    """Return the gradient of `grad . encode(x)` with respect to `x`, differentiable in `table` and `grad`.

    Args:
        x: N 3, points in [0, 1].
        table: P F, the features of all levels' grid points.
        grad: N L*F, gradient with respect to the features.
        levels: all levels.

    Returns:
        N 3.
    """
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = encode(x, table, levels)
        (out,) = torch.autograd.grad(y, x, grad, create_graph=keep_graph)
    return out
