"""A learned panorama texture."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.background.base import BACKGROUNDS, BaseBackground
from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.ops.activations import get_activation


@BACKGROUNDS.register("textured-background")
class TexturedBackground(BaseBackground):
    """An equirectangular texture: columns are azimuths (seamless), rows run from straight up to straight down."""

    @dataclass
    class Config(BaseBackground.Config):
        """Settings of `textured-background`."""

        height: int = option(64, low=1, high=8192)
        """Rows, over 180 degrees of elevation."""
        width: int = option(64, low=1, high=8192)
        """Columns, over 360 degrees of azimuth."""
        color_activation: str = "sigmoid"
        """Turns the texture's values into colour."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if cfg.height < 1 or cfg.width < 1:
            raise ConfigError(f"background: height and width must be at least 1, got {cfg.height} and {cfg.width}.")
        self.texture = nn.Parameter(torch.randn(1, cfg.n_output_dims, cfg.height, cfg.width))
        self.color_activation = get_activation(cfg.color_activation)

    def forward(
        self, dirs: Float[Tensor, "B H W 3"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B H W K"]:
        """Return the texture's colour in every direction."""
        x, y, z = dirs.unbind(-1)
        azimuth = torch.atan2(y, x) / (2 * math.pi) + 0.5
        polar = torch.atan2(torch.hypot(x, y), z) / math.pi
        # One more column on either side, from the other end, closes the panorama.
        texture = F.pad(self.texture, (1, 1, 0, 0), mode="circular")
        width = self.cfg.width
        u = 2 * (azimuth * width + 1) / (width + 2) - 1
        grid = torch.stack([u, 2 * polar - 1], dim=-1).reshape(1, -1, 1, 2)
        values = F.grid_sample(texture.to(dirs), grid, padding_mode="border", align_corners=False)
        return self.color_activation(values[0, :, :, 0].T.reshape(*dirs.shape[:-1], texture.shape[1]))
