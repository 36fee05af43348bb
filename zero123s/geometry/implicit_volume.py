"""A density field on a hash grid, initialised with a blob."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.errors import ConfigError
from zero123s.geometry.base import GEOMETRIES
from zero123s.geometry.scalar_field import EncodedFieldGeometry, norm
from zero123s.ops.activations import get_activation
from zero123s.ops.encoded_networks import Cone
from zero123s.ops.networks import MLP, build_mlp


@GEOMETRIES.register("implicit-volume")
class ImplicitVolume(EncodedFieldGeometry):
    """Density and features from one hash encoding and a small network each."""

    @dataclass
    class Config(EncodedFieldGeometry.Config):
        """Settings of `implicit-volume`."""

        density_activation: str = "softplus"
        """Turns raw density into density."""
        density_bias: Any = "blob_magic3d"
        """A number, "blob_magic3d" (a cone) or "blob_dreamfusion" (a Gaussian): initial raw density."""
        density_blob_scale: float = 10.0
        """Raw density of the blob at the centre."""
        density_blob_std: float = 0.5
        """Radius of the blob, world units."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if isinstance(cfg.density_bias, str) and cfg.density_bias not in ("blob_magic3d", "blob_dreamfusion"):
            raise ConfigError(
                f"geometry.density_bias: '{cfg.density_bias}' is not a number, blob_magic3d or blob_dreamfusion."
            )
        self.density_network = build_mlp(self.encoding.n_output_dims, 1, cfg.mlp_network_config)
        self.density_activation = get_activation(cfg.density_activation)

    @property
    def scalar_network(self) -> MLP:
        """The network of the raw density."""
        return self.density_network

    def bias(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return what is added to the raw density: s (1 - |x| / std), s exp(-|x|^2 / 2 std^2), or a constant."""
        cfg = self.cfg
        if cfg.density_bias == "blob_magic3d":
            return cfg.density_blob_scale * (1 - norm(x) / cfg.density_blob_std)
        if cfg.density_bias == "blob_dreamfusion":
            return cfg.density_blob_scale * torch.exp(-0.5 * x.square().sum(-1) / cfg.density_blob_std**2)
        return torch.full_like(x[:, 0], float(cfg.density_bias))

    def cone(self) -> Cone | None:
        """Return the bias as a function of |x|, but for the Gaussian and a subclass's own."""
        cfg = self.cfg
        if type(self).bias is not ImplicitVolume.bias or cfg.density_bias == "blob_dreamfusion":
            return None
        if cfg.density_bias == "blob_magic3d":
            return Cone(cfg.radius, cfg.density_blob_scale, -cfg.density_blob_scale / cfg.density_blob_std)
        return Cone(cfg.radius, float(cfg.density_bias), 0.0)

    def activated_sum(self, total: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Return the activated sum of the network's output and the bias."""
        return self.density_activation(total)
