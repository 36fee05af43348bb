"""A scalar field on a hash encoding, with a small network each for features and predicted normals."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from zero123s.geometry.encoding import EncodingConfig, HashEncoding
from zero123s.geometry.scalar_field import ScalarFieldGeometry
from zero123s.ops.networks import NetworkConfig, build_mlp


class EncodedFieldGeometry(ScalarFieldGeometry):
    """Holds the encoding and all networks but that of the scalar, which the subclass names."""

    @dataclass
    class Config(ScalarFieldGeometry.Config):
        """Settings common to encoded fields."""

        n_input_dims: int = 3
        """Always 3; here because threestudio names it."""
        pos_encoding_config: EncodingConfig = field(default_factory=EncodingConfig)
        """Position encoding."""
        mlp_network_config: NetworkConfig = field(default_factory=NetworkConfig)
        """Network behind it."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.encoding = HashEncoding(cfg.pos_encoding_config)
        if cfg.finite_difference_normal_eps == "progressive" and not self.encoding.progressive:
            super().progressive_eps()
        n = self.encoding.n_output_dims
        self.feature_network = build_mlp(n, self.n_features, cfg.mlp_network_config) if self.n_features else None
        self.normal_network = build_mlp(n, 3, cfg.mlp_network_config) if cfg.normal_type == "pred" else None

    def encode(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Return the encoding of world positions."""
        return self.encoding(x / (2 * self.cfg.radius) + 0.5)

    def features_of(self, encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Return the feature network's output."""
        assert self.feature_network is not None
        return self.feature_network(encoded)

    def predicted_normal(self, encoded: Float[Tensor, "N C"]) -> Float[Tensor, "N 3"]:
        """Return the normal network's output."""
        assert self.normal_network is not None
        return self.normal_network(encoded)

    def progressive_eps(self) -> float:
        """Return the edge of the finest cell that is switched on (Neuralangelo)."""
        return 2 * self.cfg.radius / self.encoding.active_resolution
