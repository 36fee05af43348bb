"""A uniform background colour."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.background.base import BACKGROUNDS, BaseBackground
from zero123s.background.random_color import replace_by_random_color
from zero123s.errors import ConfigError


@BACKGROUNDS.register("solid-color-background")
class SolidColorBackground(BaseBackground):
    """A constant colour, white by default."""

    @dataclass
    class Config(BaseBackground.Config):
        """Settings of `solid-color-background`."""

        color: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
        """sRGB in [0, 1]."""
        learned: bool = False
        """Optimise the colour."""
        random_aug: bool = False
        """Replace the colour of a training batch by a random one, with probability random_aug_prob."""
        random_aug_prob: float = 0.5
        """Probability of the replacement."""

    cfg: Config

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        n, in_range = cfg.n_output_dims, all(0 <= c <= 1 for c in cfg.color)
        if len(cfg.color) != n or not in_range:
            raise ConfigError(f"background.color: expected {n} numbers in [0, 1], got {cfg.color}.")
        color = torch.tensor(cfg.color)
        self.color: Tensor
        if cfg.learned:
            self.color = nn.Parameter(color)
        else:
            self.register_buffer("color", color)

    def forward(
        self, dirs: Float[Tensor, "B H W 3"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B H W K"]:
        """Return the colour for every direction; in training with `random_aug`, sometimes one random colour per view."""
        color = self.color.to(dirs).expand(*dirs.shape[:-1], -1)
        if self.training and self.cfg.random_aug:
            return replace_by_random_color(color, self.cfg.random_aug_prob, generator)
        return color
