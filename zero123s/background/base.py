"""The interface of backgrounds: a colour for every ray direction."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zero123s.config.options import option
from zero123s.registry import Registry


class BaseBackground(nn.Module):
    """Base class of `background_type`."""

    @dataclass
    class Config:
        """Settings common to all backgrounds."""

        n_output_dims: int = option(3, low=3, high=4)
        """Colours: 3, or 4 latent channels."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg

    def forward(
        self, dirs: Float[Tensor, "B H W 3"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "B H W K"]:
        """Return sRGB colour in [0, 1], or latents, for unit ray directions; `generator` draws augmentations in
        training.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward().")

    def on_step(self, step: int) -> None:
        """Move schedules to global step `step`."""


BACKGROUNDS: Registry[BaseBackground] = Registry("background", BaseBackground)
