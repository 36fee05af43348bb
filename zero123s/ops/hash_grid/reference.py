"""Plain-torch hash encoding: the definition that every faster backend is tested against."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_PRIMES = (1, 2654435761, 805459861)
_UINT32 = 0xFFFFFFFF


class Level(NamedTuple):
    """One level of the grid."""

    scale: float
    resolution: int
    offset: int
    size: int
    hashed: bool


def corner_rows(corner: Int[Tensor, "N 3"], level: Level) -> Int[Tensor, "N"]:
    """Return the table row of each integer grid point, in tiny-cuda-nn's unsigned 32-bit arithmetic."""
    x, y, z = (corner & _UINT32).unbind(-1)
    if level.hashed:
        index = (x * _PRIMES[0]) ^ (y * _PRIMES[1]) ^ (z * _PRIMES[2])
    else:
        index = x + y * level.resolution + z * level.resolution**2
    return level.offset + (index & _UINT32) % level.size


def encode(x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], levels: tuple[Level, ...]) -> Float[Tensor, "N LF"]:
    """Interpolate trilinearly on every level; features are level-major."""
    features = []
    for level in levels:
        position = x * level.scale + 0.5
        base = torch.floor(position).detach()
        fraction = position - base
        cell = base.long()
        total = x.new_zeros(x.shape[0], table.shape[1])
        for corner in range(8):
            bits = [corner >> axis & 1 for axis in range(3)]
            weight = x.new_ones(x.shape[0])
            for axis, bit in enumerate(bits):
                f = fraction[:, axis]
                weight = weight * (f if bit else 1.0 - f)
            rows = corner_rows(cell + torch.tensor(bits, device=x.device), level)
            total = total + weight[:, None] * table.index_select(0, rows)
        features.append(total)
    return torch.cat(features, dim=-1)
