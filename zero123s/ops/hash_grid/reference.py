"""Plain-torch hash encoding: the definition that every faster backend is tested against."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

GradBuffer = Callable[[], Tensor]
"""Returns the buffer, shaped as the table, to which a backend may add the table gradient instead of returning it."""
_PRIMES = (1, 2654435761, 805459861)
_UINT32 = 0xFFFFFFFF


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
    """Return `table[index]`, differentiable any number of times."""
    n_features = table.shape[1]
    if table.device.type != "cpu" or n_features % 2:
        return table.index_select(0, index)
    pairs = n_features // 2
    if pairs > 1:
        index = (index[:, None] * pairs + torch.arange(pairs)).flatten()
    return _Gather.apply(table.reshape(-1, 2), index).reshape(-1, n_features)  # type: ignore[union-attr]


def corner_rows(base: Int[Tensor, "3 N"], level: Level) -> Int[Tensor, "8 N"]:
    """Return the rows inside their level of the corners of cells, in tiny-cuda-nn's unsigned 32-bit arithmetic.

    Corner c lies one further along z, y and x where the bits 1, 2 and 4 of c are set.
    """
    both = torch.stack([base, base + 1], dim=1)  # 3 2 N
    if level.hashed:
        x, y, z = both * torch.tensor(_PRIMES, device=base.device)[:, None, None]
        # A hashed level has a power of two of rows, so that the lower bits are all that counts.
        return ((x[:, None, None] ^ (y[:, None] ^ z)) & (level.size - 1)).flatten(0, 2)
    x, y, z = both & _UINT32
    rows = x[:, None, None] + (level.resolution * y[:, None] + level.resolution**2 * z)
    return ((rows & _UINT32) % level.size).flatten(0, 2)


def encode(x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], levels: tuple[Level, ...]) -> Float[Tensor, "N LF"]:
    """Interpolate trilinearly on every level; features are level-major."""
    features = []
    axes = x.t().contiguous()
    # Split once and gather once per level: every gather's gradient is a buffer as large as what it reads from.
    for level, rows in zip(levels, table.split([level.size for level in levels]), strict=True):
        position = axes * level.scale + 0.5
        base = torch.floor(position).detach()
        wx, wy, wz = torch.stack([1.0 - (position - base), position - base], dim=1)  # each 2 N
        weights = (wx[:, None, None] * (wy[:, None] * wz)).flatten(0, 2)
        values = gather_rows(rows, corner_rows(base.long(), level).flatten()).view(8, -1, table.shape[1])
        features.append((weights[..., None] * values).sum(dim=0))
    return torch.cat(features, dim=-1)


def position_gradient(
    x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], grad: Float[Tensor, "N LF"], levels: tuple[Level, ...]
) -> Float[Tensor, "N 3"]:
    """Return the gradient of `grad . encode(x)` by `x`, differentiable in table and `grad`."""
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = encode(x, table, levels)
        (out,) = torch.autograd.grad(y, x, grad, create_graph=keep_graph)
    return out
