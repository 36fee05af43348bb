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


def corner_rows(corner: Int[Tensor, "... 3"], level: Level) -> Int[Tensor, "..."]:
    """Return the row inside its level of each integer grid point, in tiny-cuda-nn's unsigned 32-bit arithmetic."""
    x, y, z = (corner & _UINT32).unbind(-1)
    if level.hashed:
        index = (x * _PRIMES[0]) ^ (y * _PRIMES[1]) ^ (z * _PRIMES[2])
    else:
        index = x + y * level.resolution + z * level.resolution**2
    return (index & _UINT32) % level.size


def encode(x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], levels: tuple[Level, ...]) -> Float[Tensor, "N LF"]:
    """Interpolate trilinearly on every level; features are level-major."""
    features = []
    # Split once and gather once per level: every gather's gradient is a buffer as large as what it reads from.
    for level, rows in zip(levels, table.split([level.size for level in levels]), strict=True):
        position = x * level.scale + 0.5
        base = torch.floor(position).detach()
        fraction = position - base
        bits = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], device=x.device)
        weights = torch.where(bits[:, None] == 1, fraction, 1.0 - fraction).prod(dim=-1)
        index = corner_rows(base.long() + bits[:, None], level).flatten()
        values = rows.index_select(0, index).view(8, -1, table.shape[1])
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
