"""Colour that depends on the viewing direction, from a small network."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from zero123s.errors import ConfigError
from zero123s.material.base import MATERIALS, BaseMaterial, Shading
from zero123s.ops.activations import get_activation
from zero123s.ops.networks import DirectionEncodingConfig, DirectionNetwork, NetworkConfig, small_network


@MATERIALS.register("neural-radiance-material")
class NeuralRadianceMaterial(BaseMaterial):
    """colour = activation(network(features, direction)), independent of the light.

    A zero direction, as the exporter gives, means the mean of the encoded directions: one colour for all views.
    """

    @dataclass
    class Config(BaseMaterial.Config):
        """Settings of `neural-radiance-material`."""

        input_feature_dims: int | None = None
        """Length of the feature vector; None = the geometry's own n_feature_dims, which a number must equal."""
        color_activation: str = "sigmoid"
        """Turns the network's output into colour."""
        dir_encoding_config: DirectionEncodingConfig = field(default_factory=DirectionEncodingConfig)
        """Encoding of the viewing direction."""
        mlp_network_config: NetworkConfig = field(default_factory=small_network)
        """Network behind features and direction."""

    cfg: Config

    def __init__(self, cfg: Config, n_features: int) -> None:
        super().__init__(cfg, n_features)
        if cfg.input_feature_dims not in (None, n_features):
            raise ConfigError(
                f"system.material.input_feature_dims is {cfg.input_feature_dims}, but the geometry delivers "
                f"{n_features} features; set system.geometry.n_feature_dims to the same number."
            )
        self.network = DirectionNetwork(n_features, 3, cfg.dir_encoding_config, cfg.mlp_network_config)
        self.color_activation = get_activation(cfg.color_activation)

    def forward(
        self,
        features: Float[Tensor, "N C"],
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        normal: Float[Tensor, "N 3"] | None,
        light_positions: Float[Tensor, "N 3"] | None,
        shading: Shading,
    ) -> Float[Tensor, "N 3"]:
        """Return the colour for viewing directions `dirs`."""
        return self.color_activation(self.network(features, dirs))
