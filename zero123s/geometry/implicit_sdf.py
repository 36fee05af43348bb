"""A signed distance field on a hash grid, initialised as an exact sphere or ellipsoid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.config.schedule import Schedule
from zero123s.errors import ConfigError
from zero123s.geometry.base import GEOMETRIES
from zero123s.geometry.scalar_field import EncodedFieldGeometry, norm
from zero123s.ops.encoded_networks import Cone
from zero123s.ops.networks import MLP, build_mlp

SHAPES = ("sphere", "ellipsoid")


@GEOMETRIES.register("implicit-sdf")
class ImplicitSDF(EncodedFieldGeometry):
    """Signed distance, negative inside: an analytic shape plus a network whose last layer starts at zero.

    For density-based renderers, sigma = s sigmoid(-s sdf) with the sharpness s: the density that NeuS assigns to a ray
    that meets the surface head on.
    """

    @dataclass
    class Config(EncodedFieldGeometry.Config):
        """Settings of `implicit-sdf`."""

        shape_init: str | None = None
        """"sphere", "ellipsoid", or None: initial shape; takes precedence over sdf_bias."""
        shape_init_params: Any = None
        """Radius of the sphere, or three half axes of the ellipsoid, world units."""
        sdf_bias: Any = "sphere"
        """Added to the network's output: "sphere", "ellipsoid" or a number."""
        sdf_bias_params: Any = 0.5
        """Radius of the sphere, or three half axes of the ellipsoid, world units."""
        sharpness: Any = 20.0
        """Inverse width of the surface in world units for density-based renderers; number or schedule."""
        isosurface_threshold: Any = 0.0
        """Level of minus the distance at which the exporter cuts; the surface itself is 0."""

    cfg: Config
    has_sdf = True

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if cfg.shape_init is not None:
            self.shape, self.shape_params = _shape(cfg.shape_init, cfg.shape_init_params, "geometry.shape_init")
        elif isinstance(cfg.sdf_bias, str):
            self.shape, self.shape_params = _shape(cfg.sdf_bias, cfg.sdf_bias_params, "geometry.sdf_bias")
        else:
            self.shape, self.shape_params = "constant", _numbers(cfg.sdf_bias, 1, "geometry.sdf_bias")
        self.sdf_network = build_mlp(self.encoding.n_output_dims, 1, cfg.mlp_network_config)
        if self.shape != "constant":
            # The last layer learns from the first step on, the ones before it from the second.
            nn.init.zeros_(self.sdf_network.layers[-1].weight)  # type: ignore[arg-type]
        self.sharpness_schedule = Schedule(cfg.sharpness, "system.geometry.sharpness")
        if self.sharpness_schedule.min <= 0:
            raise ConfigError(f"geometry.sharpness: must stay above 0, got {cfg.sharpness!r}.")
        self.sharpness = self.sharpness_schedule(0)

    def on_step(self, step: int) -> None:
        """Move the sharpness along its schedule."""
        self.sharpness = self.sharpness_schedule(step)

    @property
    def scalar_network(self) -> MLP:
        """The network of the signed distance."""
        return self.sdf_network

    def bias(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the signed distance of the shape that the field starts from."""
        if self.shape == "sphere":
            return norm(x) - self.shape_params[0]
        if self.shape == "ellipsoid":
            return ellipsoid_sdf(x, self.shape_params)
        return torch.full_like(x[:, 0], self.shape_params[0])

    def cone(self) -> Cone | None:
        """Return the bias as a function of |x|, but for the ellipsoid and a subclass's own."""
        if type(self).bias is not ImplicitSDF.bias or self.shape == "ellipsoid":
            return None
        first = self.shape_params[0]
        return Cone(self.cfg.radius, -first, 1.0) if self.shape == "sphere" else Cone(self.cfg.radius, first, 0.0)

    def sigma_of(self, value: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Return s sigmoid(-s sdf)."""
        return self.sharpness * torch.sigmoid(-self.sharpness * value)

    def surface_level(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return minus the signed distance, which grows towards the inside."""
        return -self.value_at(x)


def ellipsoid_sdf(x: Float[Tensor, "N 3"], half_axes: Sequence[float]) -> Float[Tensor, "N"]:
    """Return k (k - 1) / |x / a^2| with k = |x / a|: zero exactly on the ellipsoid, with a gradient of length 1 there.

    The true distance has no closed form; at the centre the limit along the shortest axis is taken.
    """
    axes = x.new_tensor(list(half_axes))
    k = norm(x / axes)
    slope = norm(x / axes.square())
    shortest = axes.min()
    centre = k < 1e-3
    return torch.where(centre, -shortest * (1 - k), k * (k - 1) / torch.where(centre, torch.ones_like(slope), slope))


def _shape(name: str, params: Any, key: str) -> tuple[str, list[float]]:
    if name not in SHAPES:
        raise ConfigError(f"{key}: '{name}' is none of {', '.join(SHAPES)}.")
    numbers = _numbers(params, 1 if name == "sphere" else 3, f"{key}_params")
    if min(numbers) <= 0:
        raise ConfigError(f"{key}_params: lengths must be above 0, got {params!r}.")
    return name, numbers


def _numbers(value: Any, count: int, key: str) -> list[float]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(values) != count or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise ConfigError(f"{key}: expected {'a number' if count == 1 else f'{count} numbers'}, got {value!r}.")
    return [float(v) for v in values]
