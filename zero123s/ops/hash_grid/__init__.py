"""Multiresolution hash encoding in tiny-cuda-nn's layout (Mueller et al. 2022, Instant Neural Graphics Primitives)."""

import math
from dataclasses import astuple, dataclass
from functools import cached_property
from importlib import import_module

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.hash_grid import reference
from zero123s.ops.hash_grid.autograd import Kernels
from zero123s.ops.hash_grid.reference import GradBuffer, Level

__all__ = ["GradBuffer", "HashGrid", "Level", "automatic_backend", "encode", "kernels_of", "position_gradient"]


@dataclass(frozen=True)
class HashGrid:
    """Sizes of a multiresolution hash grid; level l has scale `base_resolution * per_level_scale**l - 1`.

    The layout is tiny-cuda-nn's: level sizes, offsets, hashing and parameter order.

    Example:
        >>> from zero123s.ops.hash_grid import HashGrid
        >>> grid = HashGrid(n_levels=2, log2_hashmap_size=8, base_resolution=4, per_level_scale=2.0)
        >>> grid.resolutions, grid.offsets, grid.n_params  # the second level has 8^3 > 2^8 points: it is hashed
        ((4, 8), (0, 64, 320), 640)
    """

    n_levels: int = 16
    n_features_per_level: int = 2
    log2_hashmap_size: int = 19
    base_resolution: int = 16
    per_level_scale: float = 1.447269237440378

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Every level's scale, resolution, first table row, row count and whether rows are found by hashing."""
        log2_scale = np.float32(math.log2(self.per_level_scale))
        levels, offset = [], 0
        for index in range(self.n_levels):
            # float32 as in tiny-cuda-nn: one ulp can change ceil(scale), and with it the layout.
            growth = np.exp2(np.float32(index) * log2_scale, dtype=np.float32)
            scale = float(growth * np.float32(self.base_resolution) - np.float32(1))
            resolution = math.ceil(scale) + 1
            aligned = (resolution**3 + 7) // 8 * 8
            size = min(aligned, 2**self.log2_hashmap_size)
            levels.append(Level(scale, resolution, offset, size, hashed=resolution**3 > size))
            offset += size
        return tuple(levels)

    @property
    def sizes(self) -> tuple[int, int, int, int, float]:
        """The grid's own parameters, in the order of its fields."""
        return astuple(self)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Grid points per axis of every level."""
        return tuple(level.resolution for level in self.levels)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First table row of every level, and the number of rows at the end."""
        return (*(level.offset for level in self.levels), self.n_rows)

    @property
    def n_rows(self) -> int:
        """Rows P of the table `P F`."""
        return self.levels[-1].offset + self.levels[-1].size

    @property
    def n_params(self) -> int:
        """Parameters in all, P * F; tiny-cuda-nn stores the table flattened row by row."""
        return self.n_rows * self.n_features_per_level

    @property
    def n_output_dims(self) -> int:
        """Features per point, L * F."""
        return self.n_levels * self.n_features_per_level


def encode(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "P F"],
    grid: HashGrid,
    backend: str = "auto",
    grad_buffer: GradBuffer | None = None,
) -> Float[Tensor, "N LF"]:
    """Interpolate the features of every level at points; twice differentiable in `x`, once in `table`.

    Points outside the box wrap through tiny-cuda-nn's unsigned index arithmetic: finite, but without meaning.

    Args:
        x: N 3, points in [0, 1].
        table: P F, the features of all levels' grid points, P = `grid.n_rows`.
        grid: sizes of the levels.
        backend: "auto", "reference", "numba" (CPU), "triton" or "tinycudann" (CUDA).
        grad_buffer: returns a buffer of the table's shape, to which the kernels of this project add the table gradient
            instead of giving it to autograd: saves a new buffer per call.

    Returns:
        N L*F, level by level.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.hash_grid import HashGrid, encode
        >>> grid = HashGrid(n_levels=4, log2_hashmap_size=8, base_resolution=4)
        >>> features = encode(torch.rand(10, 3), torch.ones(grid.n_rows, 2), grid)
        >>> features.shape, round(features.mean().item(), 4)  # the interpolation weights sum to 1
        (torch.Size([10, 8]), 1.0)
    """
    chosen = _backend(x, table, grid, backend)
    if chosen == "numba":
        from zero123s.ops.hash_grid import numba

        return numba.encode(x, table.contiguous(), grid.levels, grad_buffer)
    if chosen == "triton":
        from zero123s.ops.hash_grid import triton

        return triton.encode(x, table.contiguous(), grid.levels, grad_buffer)
    if chosen == "tinycudann":
        from zero123s.ops.hash_grid import tcnn

        return tcnn.encode(x, table, grid.sizes)
    return reference.encode(x, table, grid.levels)


def position_gradient(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "P F"],
    grad: Float[Tensor, "N LF"],
    grid: HashGrid,
    backend: str = "auto",
    grad_buffer: GradBuffer | None = None,
) -> Float[Tensor, "N 3"]:
    """Return the gradient of `grad . encode(x)` with respect to `x`, differentiable in `table` and `grad` but not in
    `x`.

    What analytic normals need: they train the field, and the positions of samples are not trained.

    Args:
        x: N 3, points in [0, 1].
        table: P F, the features of all levels' grid points.
        grad: N L*F, gradient with respect to the features.
        grid: sizes of the levels.
        backend: "auto", "reference", "numba" (CPU), "triton" or "tinycudann" (CUDA).
        grad_buffer: as in `encode`.

    Returns:
        N 3.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.hash_grid import HashGrid, position_gradient
        >>> grid = HashGrid(n_levels=1, base_resolution=4)
        >>> flat = torch.ones(grid.n_rows, 2)  # the same features everywhere
        >>> position_gradient(torch.rand(5, 3), flat, torch.ones(5, 2), grid).abs().max().item() < 1e-5
        True
    """
    chosen = _backend(x, table, grid, backend)
    if chosen == "numba":
        from zero123s.ops.hash_grid import numba

        return numba.position_gradient(x, table.contiguous(), grad, grid.levels, grad_buffer)
    if chosen == "triton":
        from zero123s.ops.hash_grid import triton

        return triton.position_gradient(x, table.contiguous(), grad, grid.levels, grad_buffer)
    if chosen == "tinycudann":
        from zero123s.ops.hash_grid import tcnn

        return tcnn.position_gradient(x, table, grad, grid.sizes)
    return reference.position_gradient(x, table, grad, grid.levels)


def automatic_backend(x: Tensor, table: Tensor) -> str:
    """Return the backend that "auto" takes for these tensors.

    Args:
        x: N 3, points in [0, 1].
        table: P F, the features of all levels' grid points.

    Returns:
        "numba", "triton", or "reference" where neither is written for them.

    Example:
        >>> import torch
        >>> from zero123s.ops.hash_grid import automatic_backend
        >>> automatic_backend(torch.rand(5, 3).double(), torch.ones(64, 2))  # kernels are written for float32
        'reference'
    """
    return backends.resolve("hash_grid", "auto" if _kernels_fit(x, table) else "reference", x.device)


def kernels_of(name: str) -> type[Kernels]:
    """Return the kernels of a backend.

    Args:
        name: of a backend that can run here, "numba" or "triton".

    Returns:
        Functions on tensors that are stored axis by axis.

    Raises:
        KeyError: another backend.

    Example:
        >>> from zero123s.ops.hash_grid import kernels_of
        >>> kernels_of("numba").__name__
        'NumbaKernels'
    """
    kernels = {"numba": "NumbaKernels", "triton": "TritonKernels"}[name]
    return getattr(import_module(f"zero123s.ops.hash_grid.{name}"), kernels)


def _backend(x: Tensor, table: Tensor, grid: HashGrid, backend: str) -> str:
    assert table.shape == (grid.n_rows, grid.n_features_per_level), "the table does not belong to this grid"
    return automatic_backend(x, table) if backend == "auto" else backends.resolve("hash_grid", backend, x.device)


def _kernels_fit(x: Tensor, table: Tensor) -> bool:
    """Return whether the kernels of the device are written for these tensors, and may be used."""
    n_features = table.shape[1]
    if x.device.type == "cpu":  # numba's, of pairs of features
        return x.dtype == table.dtype == torch.float32 and n_features % 2 == 0
    # Triton's; its table gradient is summed in varying order.
    return (
        x.dtype == torch.float32
        and n_features & (n_features - 1) == 0
        and not torch.are_deterministic_algorithms_enabled()
    )
