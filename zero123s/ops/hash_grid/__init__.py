"""Multiresolution hash grid encoding (Instant-NGP), laid out exactly as tiny-cuda-nn lays it out."""

from jaxtyping import Float
from torch import Tensor

from zero123s.errors import ConfigError
from zero123s.ops.hash_grid.layout import HashGrid
from zero123s.ops.hash_grid.reference import encode_reference

__all__ = ["HashGrid", "encode"]


def encode(
    x: Float[Tensor, "N 3"], table: Float[Tensor, "P F"], grid: HashGrid, backend: str = "auto"
) -> Float[Tensor, "N LF"]:
    """Return the features of positions, level by level.

    Differentiable in `table` once and in `x` twice.

    Args:
        x: positions in [0, 1]; outside they are clamped to the border.
        table: `grid.n_entries` rows of `grid.n_features_per_level` features.
        grid: the layout.
        backend: "auto" or "reference".

    Raises:
        ConfigError: an unknown backend.
        ValueError: a table that does not fit the layout.
    """
    if backend not in ("auto", "reference"):
        raise ConfigError(f"Unknown hash grid backend '{backend}'. Known: auto, reference.")
    if tuple(table.shape) != (grid.n_entries, grid.n_features_per_level):
        expected = (grid.n_entries, grid.n_features_per_level)
        raise ValueError(f"`table` must have shape {expected} for this grid, got {tuple(table.shape)}.")
    return encode_reference(x, table, grid)
