"""A guidance that subclasses one of zero123s: its weight fades out towards the end of training."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.config.options import option
from zero123s.config.schedule import Schedule
from zero123s.guidance.base import GUIDANCES
from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.structures import Cameras, GuidanceOutput, ReferenceView


@GUIDANCES.register("annealed-zero123-guidance")
class AnnealedZero123Guidance(StableZero123Guidance):
    """Zero123 whose loss is multiplied by a schedule."""

    @dataclass
    class Config(StableZero123Guidance.Config):
        """Settings of `annealed-zero123-guidance`."""

        strength: Any = option(1.0, low=0.0, schedule=True)
        """Factor on the loss."""

    cfg: Config

    def __init__(self, cfg: Config, reference: ReferenceView, device: torch.device | str = "cpu") -> None:
        super().__init__(cfg, reference, device)
        self.strength = Schedule(cfg.strength, "system.guidance.strength")

    def __call__(
        self, comp_rgb: Float[Tensor, "B H W 3"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> GuidanceOutput:
        """Scale the parent's loss by the schedule."""
        output = super().__call__(comp_rgb, cameras, step, generator)
        return replace(output, loss=self.strength(step) * output.loss)
