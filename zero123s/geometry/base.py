"""The interface of geometries: density, optional signed distance, and features at points in a cube."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from zero123s.errors import ConfigError
from zero123s.mesh.splats import GaussianParameters
from zero123s.registry import Registry
from zero123s.structures import GaussianViews, ReferenceView, TensorData


@dataclass(frozen=True)
class GeometryOutput(TensorData):
    """A geometry evaluated at N points; what was not requested is None."""

    sigma: Float[Tensor, "N"]
    features: Float[Tensor, "N C"] | None = None
    normal: Float[Tensor, "N 3"] | None = None
    normal_perturbed: Float[Tensor, "K 3"] | None = None
    """Normals a small random step away from the points `perturbed_at`, or from all of them."""
    sdf: Float[Tensor, "N"] | None = None
    sdf_grad: Float[Tensor, "N 3"] | None = None
    perturbed_at: Int[Tensor, "K"] | None = None


class BaseGeometry(nn.Module):
    """Base class of `geometry_type`.

    Args:
        cfg: the parsed `Config` of the subclass.
    """

    @dataclass
    class Config:
        """Settings common to all geometries."""

        radius: float = 1.0
        """Half edge of the cube [-radius, radius]^3 that holds the object, in world units."""
        isosurface_threshold: Any = "auto"
        """Level of the exported surface: a density, or "auto": the one that matches the silhouettes best."""

    cfg: Config
    has_sdf = False
    """Whether `forward` delivers a signed distance, negative inside."""
    has_gaussians = False
    """Whether the geometry is made of 3D Gaussians, which `gaussians` returns."""
    regularization_terms: tuple[str, ...] = ()
    """Names of the terms that `regularization` returns; each has its weight in `system.loss.lambda_<name>`."""
    n_features: int
    """Length of the feature vector; 0 = no features."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        if not cfg.radius > 0:
            raise ConfigError(f"geometry.radius: must be above 0, got {cfg.radius}.")
        level = cfg.isosurface_threshold
        if level != "auto" and (isinstance(level, bool) or not isinstance(level, int | float)):
            raise ConfigError(f"geometry.isosurface_threshold: {level!r} is neither a number nor auto.")
        self.cfg = cfg

    def forward(
        self, x: Float[Tensor, "N 3"], needs: frozenset[str], generator: torch.Generator | None = None
    ) -> GeometryOutput:
        """Evaluate world positions; `needs` may name "features", "normal", "normal_perturbed", "sdf".

        `generator` draws which points get a "normal_perturbed" and the small steps to it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward().")

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the volume density alone, as cheaply as possible."""
        return self(x, frozenset()).sigma

    def surface_level(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return a function that grows towards the inside: the density, unless the geometry has an SDF."""
        return self.density(x)

    def points_near(
        self, x: Float[Tensor, "N 3"], generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "K 3"], Int[Tensor, "K"] | None] | None:
        """Return the points of "normal_perturbed" and which of `x` they belong to, drawn as `forward` draws them.

        A geometry that has them also has `normal_at(points)`, so that a large batch can be evaluated in parts. None =
        only `forward` can draw them.
        """
        return None

    def normal_at(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Return unit outward normals alone."""
        raise NotImplementedError(f"{type(self).__name__} has points_near() and must define normal_at().")

    def gaussians(self, centers: Float[Tensor, "B 3"], needs: frozenset[str]) -> GaussianViews | None:
        """Return the Gaussians with their features towards camera centres as colours; None = not made of Gaussians.

        `needs` may name "normal".
        """
        return None

    def gaussian_parameters(self) -> GaussianParameters | None:
        """Return the Gaussians' parameters as files store them, without a graph; None = not made of Gaussians."""
        return None

    def start_from_views(self, reference: ReferenceView, generator: torch.Generator) -> None:
        """Initialise primitives from the posed images of a new run, if the settings say so."""

    def start_from_points(self, points: Float[Tensor, "P 3"], colors: Float[Tensor, "P 3"]) -> None:
        """Replace all primitives by new ones on a first stage's surface; for geometries that `has_gaussians`."""
        raise NotImplementedError(f"{type(self).__name__} must define start_from_points().")

    def before_step(self, optimizer: Optimizer, step: int, generator: torch.Generator) -> None:
        """Add or remove primitives before the forward pass of global step `step`; their moments follow them."""

    def start_from_distance(self, distance: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]) -> bool:
        """Set the field to a signed distance directly, if the geometry can; False = it has to be fitted."""
        return False

    def on_step(self, step: int) -> None:
        """Move schedules to global step `step`; called before the step's forward pass."""

    def regularization(self, generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """Return loss terms of the geometry itself, independent of any view: one for each of `regularization_terms`.

        Called once in a step in which one of their weights is not zero.
        """
        return {}


GEOMETRIES: Registry[BaseGeometry] = Registry("geometry", BaseGeometry)
