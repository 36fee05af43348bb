"""The interface of renderers: from rays and a radiance field to images."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from zero123s.config.options import option
from zero123s.registry import Registry
from zero123s.structures import BackgroundFunction, RadianceField, RayBundle, RenderOutput


class BaseRenderer(nn.Module):
    """Base class of `renderer_type`. It accesses the field only through its protocol, never a geometry class.

    Args:
        cfg: the parsed `Config` of the subclass.
        bound: half edge of the cube that holds the scene.
    """

    @dataclass
    class Config:
        """Settings common to all renderers."""

        eval_chunk_size: int = option(160000, low=1)
        """Rays per chunk outside training; lower it when memory is short."""

    needs_sdf = False
    """Whether the field must deliver a signed distance."""
    needs_gaussians = False
    """Whether the field must be made of 3D Gaussians."""
    has_samples = True
    """Whether "samples", "normal_perturbed" and "sdf" can be requested."""
    has_mesh = False
    """Whether "mesh" can be requested: the rendered triangles."""
    backend_of: str | None = None
    """The operation of `ops/backends.py` whose implementation the setting `backend` names, where there is one."""

    def __init__(self, cfg: Config, bound: float) -> None:
        super().__init__()
        self.cfg = cfg
        self.bound = bound

    def forward(
        self,
        rays: RayBundle,
        field: RadianceField,
        background: BackgroundFunction,
        needs: frozenset[str] = frozenset(),
        generator: torch.Generator | None = None,
    ) -> RenderOutput:
        """Render all rays; `needs` may name "normal", "samples", "normal_perturbed", "sdf", "mesh".

        In training mode sampling is stratified by `generator`; in eval mode it is fixed and done in chunks.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward().")

    def update(self, field: RadianceField, step: int, generator: torch.Generator) -> None:
        """Refresh acceleration structures before global step `step`."""

    def on_step(self, step: int) -> None:
        """Move schedules to global step `step`."""

    def occupied(self) -> Bool[Tensor, "X Y Z"] | None:
        """Return which cells of the scene's cube may be occupied; None if unknown."""
        return None


RENDERERS: Registry[BaseRenderer] = Registry("renderer", BaseRenderer)
