"""Volume rendering of a density field."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops.compositing import Composited, composite
from zero123s.ops.ray_marching import Samples
from zero123s.renderer.base import RENDERERS
from zero123s.renderer.volume import VolumeRenderer
from zero123s.structures import FieldOutput, RadianceField


@RENDERERS.register("nerf-volume-renderer")
class NerfVolumeRenderer(VolumeRenderer):
    """alpha = 1 - exp(-sigma dt) (Max 1995)."""

    @dataclass
    class Config(VolumeRenderer.Config):
        """Settings of `nerf-volume-renderer`."""

    cfg: Config

    def occupancy(self, field: RadianceField, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the optical depth of one step."""
        return field.density(x) * self.step_size

    def opacity(
        self, field: RadianceField, x: Float[Tensor, "S 3"], dt: Float[Tensor, "S"] | float
    ) -> Float[Tensor, "S"]:
        """Return 1 - exp(-sigma dt)."""
        return -torch.expm1(-field.density(x) * dt)

    def composite(
        self, out: FieldOutput, dirs: Float[Tensor, "S 3"], samples: Samples, values: Float[Tensor, "S C"]
    ) -> Composited:
        """Composite by density."""
        return composite(out.sigma, samples.t_starts, samples.t_ends, samples.packed_info, values)
