"""The memory layout of tiny-cuda-nn's hash grid, level by level."""

import math
from dataclasses import dataclass
from functools import cached_property

from zero123s.errors import ConfigError

PRIMES = (1, 2654435761, 805459861)


@dataclass(frozen=True)
class HashGrid:
    """A multiresolution hash grid over [0, 1]^3 (Instant-NGP), laid out as tiny-cuda-nn does.

    Level l has scale `base_resolution * per_level_scale^l - 1` and ceil(scale) + 1 grid points per axis. A level
    whose points fit into 2^log2_hashmap_size entries is stored densely, x fastest; the others are hashed.
    """

    n_levels: int = 16
    n_features_per_level: int = 2
    log2_hashmap_size: int = 19
    base_resolution: int = 16
    per_level_scale: float = 1.447269237440378

    def __post_init__(self) -> None:
        if min(self.n_levels, self.n_features_per_level, self.base_resolution) < 1:
            raise ConfigError(f"A hash grid needs at least one level, feature and cell, got {self}.")
        if not 1 <= self.log2_hashmap_size <= 30 or self.per_level_scale < 1:
            raise ConfigError(f"A hash grid needs log2_hashmap_size in [1, 30] and per_level_scale >= 1, got {self}.")

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """Cells per unit length of every level."""
        growth = math.log2(self.per_level_scale)
        return tuple(2.0 ** (level * growth) * self.base_resolution - 1.0 for level in range(self.n_levels))

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Grid points per axis of every level."""
        # tiny-cuda-nn computes in float32; so near a whole number must the ceiling.
        return tuple(math.ceil(_float32(s)) + 1 for s in self.scales)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Entries of every level: dense points rounded up to 8, at most the hash table."""
        return tuple(min(-(-(r**3) // 8) * 8, 2**self.log2_hashmap_size) for r in self.resolutions)

    @cached_property
    def dense(self) -> tuple[bool, ...]:
        """Whether a level stores every grid point."""
        return tuple(r**3 <= size for r, size in zip(self.resolutions, self.sizes, strict=True))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First entry of every level, and the total at the end."""
        totals = [0]
        for size in self.sizes:
            totals.append(totals[-1] + size)
        return tuple(totals)

    @property
    def n_entries(self) -> int:
        """Rows of the feature table."""
        return self.offsets[-1]

    @property
    def n_params(self) -> int:
        """Numbers in the feature table, as tiny-cuda-nn counts them."""
        return self.n_entries * self.n_features_per_level

    @property
    def n_output_dims(self) -> int:
        """Length of an encoded point."""
        return self.n_levels * self.n_features_per_level


def _float32(value: float) -> float:
    import struct

    return struct.unpack("f", struct.pack("f", value))[0]
