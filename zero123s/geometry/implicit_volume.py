"""A density field on a hash grid, with a blob to start from."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.errors import ConfigError
from zero123s.geometry.base import GEOMETRIES, BaseGeometry, GeometryOutput
from zero123s.geometry.encoding import EncodingConfig, HashEncoding, NetworkConfig, build_mlp
from zero123s.ops.activations import get_activation

NORMAL_TYPES = ("analytic", "finite_difference", "finite_difference_laplacian", "pred")
PERTURBATION = 0.01
"""Standard deviation of the step for "normal_perturbed", world units."""


@GEOMETRIES.register("implicit-volume")
class ImplicitVolume(BaseGeometry):
    """Density and features from one hash encoding and a small network each."""

    @dataclass
    class Config(BaseGeometry.Config):
        """Settings of `implicit-volume`."""

        n_input_dims: int = 3
        """Always 3; here because threestudio names it."""
        n_feature_dims: int = 3
        """Length of the feature vector for the material; 0 = none."""
        density_activation: str = "softplus"
        """Turns raw density into density."""
        density_bias: Any = "blob_magic3d"
        """A number, "blob_magic3d" (a cone) or "blob_dreamfusion" (a Gaussian): what the field starts from."""
        density_blob_scale: float = 10.0
        """Raw density of the blob at the centre."""
        density_blob_std: float = 0.5
        """Radius of the blob, world units."""
        pos_encoding_config: EncodingConfig = field(default_factory=EncodingConfig)
        """Position encoding."""
        mlp_network_config: NetworkConfig = field(default_factory=NetworkConfig)
        """Network behind it."""
        normal_type: str = "finite_difference"
        """"analytic", "finite_difference", "finite_difference_laplacian" or "pred"."""
        finite_difference_normal_eps: float = 0.01
        """Step of finite differences, world units."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if cfg.normal_type not in NORMAL_TYPES:
            raise ConfigError(f"geometry.normal_type: '{cfg.normal_type}' is none of {', '.join(NORMAL_TYPES)}.")
        if isinstance(cfg.density_bias, str) and cfg.density_bias not in ("blob_magic3d", "blob_dreamfusion"):
            raise ConfigError(
                f"geometry.density_bias: '{cfg.density_bias}' is no number, blob_magic3d or blob_dreamfusion."
            )
        self.encoding = HashEncoding(cfg.pos_encoding_config)
        n = self.encoding.n_output_dims
        self.density_network = build_mlp(n, 1, cfg.mlp_network_config)
        self.n_features = cfg.n_feature_dims
        self.feature_network = build_mlp(n, self.n_features, cfg.mlp_network_config) if self.n_features else None
        self.normal_network = build_mlp(n, 3, cfg.mlp_network_config) if cfg.normal_type == "pred" else None
        self.density_activation = get_activation(cfg.density_activation)

    def density_bias(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return what is added to the raw density: s (1 - |x| / std), s exp(-|x|^2 / 2 std^2), or a constant."""
        cfg = self.cfg
        if cfg.density_bias == "blob_magic3d":
            return cfg.density_blob_scale * (1 - _norm(x) / cfg.density_blob_std)
        if cfg.density_bias == "blob_dreamfusion":
            return cfg.density_blob_scale * torch.exp(-0.5 * x.square().sum(-1) / cfg.density_blob_std**2)
        return torch.full_like(x[:, 0], float(cfg.density_bias))

    def encode(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Return the encoding of world positions."""
        return self.encoding(x / (2 * self.cfg.radius) + 0.5)

    def _sigma(self, x: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N"]:
        return self.density_activation(self.density_network(encoded)[:, 0] + self.density_bias(x))

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return density alone: one encoding, one network."""
        return self._sigma(x, self.encode(x))

    def forward(
        self, x: Float[Tensor, "N 3"], needs: frozenset[str], generator: torch.Generator | None = None
    ) -> GeometryOutput:
        """Evaluate density and what `needs` names; analytic normals share this forward pass."""
        wants_normal = "normal" in needs
        analytic = wants_normal and self.cfg.normal_type == "analytic"
        keep_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(keep_graph or analytic):
            if analytic:
                x = x.clone() if x.is_inference() else x
                x = x.detach().requires_grad_(True)
            encoded = self.encode(x)
            sigma = self._sigma(x, encoded)
            normal = self._normal(x, encoded, sigma, keep_graph) if wants_normal else None
            wants_features = "features" in needs and self.feature_network is not None
            features = self.feature_network(encoded) if wants_features else None  # type: ignore[misc]
        perturbed = None
        if "normal_perturbed" in needs:
            offset = PERTURBATION * torch.randn(x.shape, generator=generator).to(x)
            perturbed = self(x.detach() + offset, frozenset({"normal"})).normal
        if not keep_graph:
            sigma = sigma.detach()
            features = None if features is None else features.detach()
        return GeometryOutput(sigma, features, normal, perturbed)

    def _normal(
        self, x: Float[Tensor, "N 3"], encoded: Float[Tensor, "N C"], sigma: Float[Tensor, "N"], keep_graph: bool
    ) -> Float[Tensor, "N 3"]:
        """Return unit vectors against the density gradient."""
        if self.normal_network is not None:
            return F.normalize(self.normal_network(encoded), dim=-1)
        if self.cfg.normal_type == "analytic":
            (gradient,) = torch.autograd.grad(sigma.sum(), x, create_graph=keep_graph, retain_graph=True)
            return F.normalize(-gradient, dim=-1)
        eps = self.cfg.finite_difference_normal_eps
        steps = eps * torch.eye(3, dtype=x.dtype, device=x.device)
        forward = self._sigma_at(x, steps)
        if self.cfg.normal_type == "finite_difference":
            return F.normalize(-(forward - sigma[:, None]), dim=-1)
        return F.normalize(-(forward - self._sigma_at(x, -steps)), dim=-1)

    def _sigma_at(self, x: Float[Tensor, "N 3"], steps: Float[Tensor, "3 3"]) -> Float[Tensor, "N 3"]:
        limit = self.cfg.radius
        points = (x[:, None] + steps).clamp(-limit, limit).reshape(-1, 3)
        return self.density(points).reshape(-1, 3)


def _norm(x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """|x| with a finite gradient at the origin."""
    return (x.square().sum(-1) + 1e-12).sqrt()
