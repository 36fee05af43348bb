"""Geometries by name. Add your own with `imports:` in YAML."""

from zero123s.geometry import gaussians, implicit_sdf, implicit_volume, tetrahedra_sdf, volume_grid  # noqa: F401
from zero123s.geometry.base import GEOMETRIES, BaseGeometry

__all__ = ["GEOMETRIES", "BaseGeometry"]
