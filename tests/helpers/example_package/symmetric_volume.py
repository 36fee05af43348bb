"""A geometry that subclasses one of zero123s: everything is mirrored left to right."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.config.options import option
from zero123s.geometry.base import GEOMETRIES
from zero123s.geometry.implicit_volume import ImplicitVolume


@GEOMETRIES.register("symmetric-volume")
class SymmetricVolume(ImplicitVolume):
    """Looks at |y| instead of y: what the image shows of one side holds for the other."""

    @dataclass
    class Config(ImplicitVolume.Config):
        """Settings of `symmetric-volume`."""

        mirror_axis: int = option(1, low=0, high=2)
        """0 mirrors front to back, 1 left to right, 2 top to bottom."""

    cfg: Config

    def encode(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Return the encoding of the mirrored positions."""
        mirrored = torch.arange(3, device=x.device) == self.cfg.mirror_axis
        return super().encode(torch.where(mirrored, x.abs(), x))
