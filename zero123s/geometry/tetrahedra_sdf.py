"""A signed distance at the nodes of a deformable grid, and colours from a hash grid (DMTet, Shen et al. 2021)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.geometry.base import GEOMETRIES, BaseGeometry, GeometryOutput
from zero123s.geometry.encoding import EncodingConfig, HashEncoding
from zero123s.ops.networks import NetworkConfig, build_mlp
from zero123s.ops.vectors import unit
from zero123s.randomness import generator_on

PER_CALL = 1 << 18
"""Nodes whose start value is computed at once."""


def one_hidden_layer() -> NetworkConfig:
    """Return threestudio's default network after the encoding."""
    return NetworkConfig(n_hidden_layers=1)


@GEOMETRIES.register("tetrahedra-sdf-grid")
class TetrahedraSDFGrid(BaseGeometry):
    """Signed distance, negative inside, trilinear between nodes; the surface that mesh-rasterizer finds on the same nodes.

    Distances are kept in edges of a cell, and moves of the nodes as the tanh of an edge, so that a learning rate means
    the same at every size. A moved node is a warp of space: the distance at x is that of the unmoved grid at x - move.
    """

    @dataclass
    class Config(BaseGeometry.Config):
        """Settings of `tetrahedra-sdf-grid`."""

        isosurface_resolution: int = option(128, low=4, high=512)
        """Cells per axis; the renderer's grid_resolution should be the same."""
        isosurface_deformable_grid: bool = True
        """Optimise the nodes' positions, by up to a cell edge."""
        n_feature_dims: int = option(3, low=0, high=1024)
        """Length of the feature vector for the material; 0 = none."""
        pos_encoding_config: EncodingConfig = field(default_factory=EncodingConfig)
        """Position encoding of the features."""
        mlp_network_config: NetworkConfig = field(default_factory=one_hidden_layer)
        """Network after the encoding."""
        geometry_only: bool = False
        """No features at all."""
        fix_geometry: bool = False
        """Freeze distances and nodes: only colours are trained."""
        shape_init: str | None = option(None, choices=("sphere", "ellipsoid"))
        """Initial shape without a first stage; None = a sphere of half the radius."""
        shape_init_params: Any = None
        """Radius of the sphere, or three half axes of the ellipsoid, world units."""
        isosurface_threshold: Any = 0.0
        """Level of minus the distance at which the exporter cuts; the surface itself is 0."""

    cfg: Config
    has_sdf = True

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        n = cfg.isosurface_resolution + 1
        self.cell = 2 * cfg.radius / cfg.isosurface_resolution
        learns = not cfg.fix_geometry
        self.sdf = nn.Parameter(torch.empty(n, n, n), requires_grad=learns)
        moves = torch.zeros(3, n, n, n)
        self.deformation = nn.Parameter(moves, requires_grad=learns) if cfg.isosurface_deformable_grid else None
        self.n_features = 0 if cfg.geometry_only else cfg.n_feature_dims
        self.encoding = HashEncoding(cfg.pos_encoding_config) if self.n_features else None
        self.feature_network = None
        if self.encoding is not None:
            self.feature_network = build_mlp(self.encoding.n_output_dims, self.n_features, cfg.mlp_network_config)
        axes = self._half_axes()
        self.start_from_distance(lambda x: ((x / x.new_tensor(axes)).norm(dim=-1) - 1) * min(axes))

    def _half_axes(self) -> list[float]:
        given, kind = self.cfg.shape_init_params, self.cfg.shape_init
        if kind is None:
            return [0.5 * self.cfg.radius] * 3
        values = list(given) if isinstance(given, list | tuple) else [given] * 3
        if len(values) != 3 or not all(isinstance(v, int | float) and v > 0 for v in values):
            raise ConfigError(f"geometry.shape_init_params: {given!r} does not describe a {kind}.")
        return [float(v) for v in values]

    @torch.no_grad()
    def start_from_distance(self, distance: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]) -> bool:
        """Set all nodes to signed distances, a function of world positions N 3 to N, and undo their deformation."""
        flat = self.sdf.data.view(-1)
        for start in range(0, len(flat), PER_CALL):
            x = self.node_positions(torch.arange(start, min(start + PER_CALL, len(flat)), device=flat.device))
            flat[start : start + len(x)] = distance(x).to(flat) / self.cell
        if self.deformation is not None:
            self.deformation.data.zero_()
        return True

    def node_positions(self, nodes: Int[Tensor, "N"]) -> Float[Tensor, "N 3"]:
        """Return the undeformed world positions of numbered nodes; the last axis varies fastest."""
        n = self.cfg.isosurface_resolution + 1
        index = torch.stack([nodes // (n * n), nodes // n % n, nodes % n], dim=-1)
        return index * self.cell - self.cfg.radius

    def _interpolate(self, grid: Float[Tensor, "C X Y Z"], x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        at = (x / self.cfg.radius).flip(-1)[None, None, None]  # grid_sample counts the last axis first
        values = F.grid_sample(grid[None], at, padding_mode="border", align_corners=True)
        return values[0, :, 0, 0].T

    def value_at(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the signed distance in world units."""
        if self.deformation is not None:
            move = self.cell * torch.tanh(self.deformation)
            # The node that has come to x left x - move; one correction finds its move.
            x = x - self._interpolate(move, x - self._interpolate(move, x))
        return self.cell * self._interpolate(self.sdf[None], x)[:, 0]

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return s sigmoid(-s sdf) with a width of one cell."""
        return torch.sigmoid(-self.value_at(x) / self.cell) / self.cell

    def surface_level(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return minus the signed distance."""
        return -self.value_at(x)

    def forward(
        self, x: Float[Tensor, "N 3"], needs: frozenset[str], generator: torch.Generator | None = None
    ) -> GeometryOutput:
        """Evaluate what `needs` names; gradients are central differences over a cell."""
        x = x.detach()
        sdf = self.value_at(x)
        features = normal = gradient = perturbed = None
        if "features" in needs and self.encoding is not None and self.feature_network is not None:
            features = self.feature_network(self.encoding(x / (2 * self.cfg.radius) + 0.5))
        if needs & {"normal", "sdf"}:
            gradient = self._gradient(x)
            normal = unit(gradient)
        if "normal_perturbed" in needs:
            drawn_by = generator_on(x.device, generator)
            step = torch.randn(x.shape, generator=drawn_by, device=x.device).to(x)
            perturbed = unit(self._gradient(x + 0.01 * step))
        sigma = torch.sigmoid(-sdf / self.cell) / self.cell
        return GeometryOutput(sigma, features, normal, perturbed, sdf=sdf, sdf_grad=gradient)

    def _gradient(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        steps = 0.5 * self.cell * torch.eye(3, dtype=x.dtype, device=x.device)
        both = torch.stack([x[:, None] + steps, x[:, None] - steps]).reshape(-1, 3)
        ahead, behind = self.value_at(both).reshape(2, -1, 3)
        return (ahead - behind) / self.cell
