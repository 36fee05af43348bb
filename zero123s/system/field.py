"""Geometry and material joined into the radiance field that renderer and exporter see."""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.geometry.base import BaseGeometry
from zero123s.material.base import BaseMaterial, Shading
from zero123s.structures import FieldOutput


class GeometryMaterialField:
    """A radiance field under one shading; cheap to make, holds no parameters of its own.

    Args:
        geometry: density and features.
        material: colour from features.
        shading: how this pass is lit.
        generator: draws the offsets of "normal_perturbed".
    """

    def __init__(
        self,
        geometry: BaseGeometry,
        material: BaseMaterial,
        shading: Shading | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.geometry = geometry
        self.material = material
        self.shading = shading or Shading()
        self.generator = generator
        self.bound = geometry.cfg.radius

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return volume density at world positions."""
        return self.geometry.density(x)

    def query(
        self,
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        needs: frozenset[str],
        light_positions: Float[Tensor, "N 3"] | None = None,
    ) -> FieldOutput:
        """Evaluate what `needs` names, in one pass through the geometry."""
        wanted = needs - {"rgb"}
        if "rgb" in needs:
            wanted |= self.material.needs(self.shading)
        out = self.geometry(x, wanted, self.generator)
        rgb = None
        if "rgb" in needs:
            features = x.new_zeros(x.shape[0], 0) if out.features is None else out.features
            rgb = self.material(features, x, dirs, out.normal, light_positions, self.shading)
        return FieldOutput(out.sigma, rgb, out.normal, out.normal_perturbed, out.sdf, out.sdf_grad, out.perturbed_at)

    def surface_level(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return a function that grows towards the inside."""
        return self.geometry.surface_level(x)
