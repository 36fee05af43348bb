"""A smooth learned environment map."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.background.base import BACKGROUNDS, BaseBackground
from zero123s.background.random_color import replace_by_random_color
from zero123s.errors import ConfigError
from zero123s.ops.activations import get_activation
from zero123s.ops.networks import DirectionEncodingConfig, DirectionNetwork, NetworkConfig, small_network


@BACKGROUNDS.register("neural-environment-map-background")
class NeuralEnvironmentMapBackground(BaseBackground):
    """A small network on encoded ray directions."""

    @dataclass
    class Config(BaseBackground.Config):
        """Settings of `neural-environment-map-background`."""

        color_activation: str = "sigmoid"
        """Turns the network's output into colour."""
        dir_encoding_config: DirectionEncodingConfig = field(default_factory=DirectionEncodingConfig)
        """Encoding of the direction."""
        mlp_network_config: NetworkConfig = field(default_factory=small_network)
        """Network after the encoding."""
        random_aug: bool = False
        """Replace the environment of a training batch by random plain colours, with probability random_aug_prob."""
        random_aug_prob: float = 0.5
        """Probability of the replacement."""
        eval_color: list[float] | None = None
        """sRGB colour in [0, 1] that is shown outside training; None = the environment."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        n, shown = cfg.n_output_dims, cfg.eval_color
        if shown is not None and (len(shown) != n or not all(0 <= c <= 1 for c in shown)):
            raise ConfigError(f"background.eval_color: expected {n} numbers in [0, 1], got {shown}.")
        self.network = DirectionNetwork(0, n, cfg.dir_encoding_config, cfg.mlp_network_config)
        self.color_activation = get_activation(cfg.color_activation)

    def forward(
        self, dirs: Float[Tensor, "B H W 3"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B H W K"]:
        """Return the environment's colour in every direction."""
        if not self.training and self.cfg.eval_color is not None:
            return dirs.new_tensor(self.cfg.eval_color).expand(*dirs.shape[:-1], -1)
        flat = dirs.reshape(-1, 3)
        color = self.color_activation(self.network(flat[:, :0], flat)).reshape(*dirs.shape[:-1], self.cfg.n_output_dims)
        if self.training and self.cfg.random_aug:
            return replace_by_random_color(color, self.cfg.random_aug_prob, generator)
        return color
