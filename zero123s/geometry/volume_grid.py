"""A density field on a dense voxel grid: no network, no hashing."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.geometry.base import GEOMETRIES
from zero123s.geometry.scalar_field import ScalarFieldGeometry, norm
from zero123s.ops.activations import get_activation
from zero123s.ops.voxel_grid import sample_voxels


@GEOMETRIES.register("volume-grid")
class VolumeGrid(ScalarFieldGeometry):
    """Raw density and features at the cells of a grid, interpolated trilinearly."""

    @dataclass
    class Config(ScalarFieldGeometry.Config):
        """Settings of `volume-grid`."""

        grid_size: list[int] = option([100, 100, 100], low=2, high=512)
        """Cells along z, y and x."""
        density_activation: str = "softplus"
        """Turns raw density into density."""
        density_bias: Any = "blob"
        """Initial raw density: "blob" (a cone) or a number. With a number, a learned factor scales the grid."""
        density_blob_scale: float = 5.0
        """Raw density of the blob at the centre."""
        density_blob_std: float = 0.5
        """Radius of the blob, world units."""
        finite_difference_normal_eps: Any = 0.001
        """Step of finite differences, world units."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if len(cfg.grid_size) != 3 or min(cfg.grid_size) < 2:
            raise ConfigError(f"geometry.grid_size: expected three numbers of at least 2 cells, got {cfg.grid_size}.")
        bias = cfg.density_bias
        if bias != "blob" and (isinstance(bias, bool) or not isinstance(bias, int | float)):
            raise ConfigError(f"geometry.density_bias: {bias!r} is neither a number nor blob.")
        if cfg.finite_difference_normal_eps == "progressive":
            self.progressive_eps()
        self.grid = nn.Parameter(torch.zeros(1 + cfg.n_feature_dims, *cfg.grid_size))
        self.normal_grid = nn.Parameter(_outward(cfg.grid_size)) if cfg.normal_type == "pred" else None
        self.density_scale: Tensor
        if bias == "blob":
            self.register_buffer("density_scale", torch.zeros(()))
        else:
            self.density_scale = nn.Parameter(torch.zeros(()))
        self.density_activation = get_activation(cfg.density_activation)

    def encode(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Return the interpolated cells: raw density, features, and the normal where it is predicted."""
        grid = self.grid if self.normal_grid is None else torch.cat([self.grid, self.normal_grid])
        return sample_voxels(grid, x / (2 * self.cfg.radius) + 0.5)

    def density_bias(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"] | float:
        """Return what is added to the raw density: s (1 - |x| / std), or a constant."""
        if self.cfg.density_bias == "blob":
            return self.cfg.density_blob_scale * (1 - norm(x) / self.cfg.density_blob_std)
        return float(self.cfg.density_bias)

    def value(self, x: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N"]:
        """Return the density."""
        return self.density_activation(encoded[:, 0] * self.density_scale.exp() + self.density_bias(x))

    def features_of(self, encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Return the feature cells."""
        return encoded[:, 1 : 1 + self.n_features]

    def predicted_normal(self, encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
        """Return the normal cells, which start as directions away from the centre."""
        return encoded[:, 1 + self.n_features :]


def _outward(grid_size: list[int]) -> Float[Tensor, "3 Z Y X"]:
    centres = [(2 * torch.arange(n) + 1) / n - 1 for n in grid_size]
    z, y, x = torch.meshgrid(*centres, indexing="ij")
    return torch.stack([x, y, z])
