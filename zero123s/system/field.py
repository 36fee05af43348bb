"""Combines geometry and material to the radiance field for renderer and exporter."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.geometry.base import BaseGeometry
from zero123s.material.base import BaseMaterial, Shading
from zero123s.mesh.splats import SH_0, GaussianParameters
from zero123s.ops.latent_colors import latents_to_rgb
from zero123s.ops.memory import recomputed
from zero123s.ops.vectors import unit
from zero123s.structures import FieldOutput, GaussianViews


class GeometryMaterialField:
    """A radiance field under one shading; cheap to create, without parameters of its own.

    Points may lie on any device and have any precision; results have those of the geometry.

    Args:
        geometry: density and features.
        material: colour from features.
        shading: how this pass is lit.
        generator: draws the offsets of "normal_perturbed".
        n_parts: parts that points are evaluated in, each one again for its gradients; 1 = all at once, keeping the
            graph. Same random numbers, same gradients up to rounding, memory of one part.
    """

    def __init__(
        self,
        geometry: BaseGeometry,
        material: BaseMaterial,
        shading: Shading | None = None,
        generator: torch.Generator | None = None,
        n_parts: int = 1,
    ) -> None:
        self.geometry = geometry
        self.material = material
        self.shading = shading or Shading()
        self.generator = generator
        self.n_parts = n_parts
        self.bound = geometry.cfg.radius
        self._like = next(geometry.parameters(), torch.zeros(0))
        # The density itself unless the geometry defines another function, so that none evaluates it twice.
        own_level = type(geometry).surface_level is not BaseGeometry.surface_level
        self.surface_level = self._level_of_geometry if own_level else self.density

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return volume density at world positions."""
        x = x.to(self._like)
        if self.n_parts == 1 or torch.is_grad_enabled():
            return self.geometry.density(x)
        return torch.cat([self.geometry.density(part) for part in x.tensor_split(self.n_parts)])

    def query(
        self,
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        needs: frozenset[str],
        light_positions: Float[Tensor, "N 3"] | None = None,
    ) -> FieldOutput:
        """Evaluate what `needs` names, in one pass through the geometry or in `n_parts`."""
        x, dirs = x.to(self._like), dirs.to(self._like)
        if self.n_parts > 1 and len(x) >= self.n_parts:
            return self._query_in_parts(x, dirs, needs, light_positions)
        return self._query(x, dirs, needs, light_positions)

    def _query(
        self,
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        needs: frozenset[str],
        light_positions: Float[Tensor, "N 3"] | None,
    ) -> FieldOutput:
        required = needs - {"rgb"}
        if "rgb" in needs:
            required |= self.material.needs(self.shading)
        out = self.geometry(x, required, self.generator)
        rgb = None
        if "rgb" in needs:
            features = x.new_zeros(x.shape[0], 0) if out.features is None else out.features
            rgb = self.material(features, x, dirs, out.normal, light_positions, self.shading)
        return FieldOutput(out.sigma, rgb, out.normal, out.normal_perturbed, out.sdf, out.sdf_grad, out.perturbed_at)

    def _query_in_parts(
        self,
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        needs: frozenset[str],
        light_positions: Float[Tensor, "N 3"] | None,
    ) -> FieldOutput:
        perturbed = at = None
        near = self.geometry.points_near(x, self.generator) if "normal_perturbed" in needs else None
        if near is not None:
            points, at = near
            needs = needs - {"normal_perturbed"}
            perturbed = self._in_parts(lambda part: (self.geometry.normal_at(points[part]),), len(points))[0]
        elif "normal_perturbed" in needs:
            return self._query(x, dirs, needs, light_positions)
        names: list[str] = []

        def evaluate(part: slice) -> tuple[Tensor, ...]:
            lights = None if light_positions is None else light_positions[part]
            out = self._query(x[part], dirs[part], needs, lights)
            found = {name: value for name, value in vars(out).items() if value is not None}
            names[:] = found
            return tuple(found.values())

        columns = self._in_parts(evaluate, len(x))
        values = dict(zip(names, columns, strict=True))
        return FieldOutput(**values, normal_perturbed=perturbed, perturbed_at=at)  # type: ignore[arg-type]

    def _in_parts(self, evaluate: Callable[[slice], tuple[Tensor, ...]], n: int) -> list[Tensor]:
        """Evaluate `n` points in parts and concatenate the results."""
        parameters = [p for m in (self.geometry, self.material) for p in m.parameters() if p.requires_grad]
        size = max(1, -(-n // self.n_parts))
        parts = [slice(start, start + size) for start in range(0, max(n, 1), size)]
        rows = [recomputed(lambda part=part: evaluate(part), parameters) for part in parts]
        return [torch.cat(column) for column in zip(*rows, strict=True)]

    def gaussians(
        self, centers: Float[Tensor, "B 3"], needs: frozenset[str], light_positions: Float[Tensor, "B 3"]
    ) -> GaussianViews | None:
        """Return the Gaussians for camera centres, coloured by the material; None = not made of Gaussians."""
        required = needs | self.material.needs(self.shading)
        views = self.geometry.gaussians(centers, required)
        if views is None:
            return None
        shape = views.rgb.shape
        x = views.means.expand(shape)
        dirs = unit(x - centers[:, None]).reshape(-1, 3)
        lights = light_positions[:, None].expand(shape).reshape(-1, 3)
        normal = None if views.normal is None else views.normal.reshape(-1, 3)
        rgb = self.material(views.rgb.reshape(-1, 3), x.reshape(-1, 3), dirs, normal, lights, self.shading)
        return replace(views, rgb=rgb.reshape(shape), normal=views.normal if "normal" in needs else None)

    @torch.no_grad()
    def gaussian_parameters(self) -> GaussianParameters | None:
        """Return the Gaussians as files store them, their colours those of the material; None = not made of Gaussians."""
        found = self.geometry.gaussian_parameters()
        if found is None:
            return None
        features = (0.5 + SH_0 * found.sh[:, 0]).clamp_min(0)
        no_direction = torch.zeros_like(found.means)
        rgb = self.material(features, found.means, no_direction, None, None, Shading())
        return replace(found, sh=torch.cat([(rgb[:, None] - 0.5) / SH_0, found.sh[:, 1:]], dim=1))

    def _level_of_geometry(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return self.geometry.surface_level(x.to(self._like))


class LatentColors:
    """A field whose colours are latents, decoded to sRGB for exporters.

    Args:
        field: whose `rgb` has four latent channels.
    """

    def __init__(self, field: GeometryMaterialField) -> None:
        self._field = field
        self.bound = field.bound
        self.density = field.density
        self.gaussians = field.gaussians
        self.surface_level = field.surface_level

    def query(
        self,
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        needs: frozenset[str],
        light_positions: Float[Tensor, "N 3"] | None = None,
    ) -> FieldOutput:
        """Evaluate what `needs` names; see `RadianceField`."""
        out = self._field.query(x, dirs, needs, light_positions)
        return out if out.rgb is None else replace(out, rgb=latents_to_rgb(out.rgb))
