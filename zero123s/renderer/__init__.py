"""Renderers by name. Add your own with `imports:` in YAML."""

from zero123s.renderer import gaussian_rasterizer, mesh_rasterizer, nerf_volume, neus_volume  # noqa: F401
from zero123s.renderer.base import RENDERERS, BaseRenderer

__all__ = ["RENDERERS", "BaseRenderer"]
