"""Splats the 3D Gaussians of a field (Kerbl et al. 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zero123s.errors import ConfigError
from zero123s.ops.gaussian_splatting import ScreenGaussians, blend, project_gaussians
from zero123s.ops.rasterization import pinhole
from zero123s.ops.sections import section
from zero123s.ops.vectors import unit
from zero123s.renderer.base import RENDERERS, BaseRenderer
from zero123s.structures import BackgroundFunction, GaussianViews, RadianceField, RayBundle, RenderOutput


@RENDERERS.register("gaussian-rasterizer")
class GaussianRasterizer(BaseRenderer):
    """Projects every Gaussian to the screen and blends front to back; for `geometry_type: gaussians`."""

    @dataclass
    class Config(BaseRenderer.Config):
        """Settings of `gaussian-rasterizer`."""

        backend: str = "auto"
        """Blending backend: "auto", "reference", "numba" (CPU), "triton" or "gsplat" (CUDA)."""

    cfg: Config
    needs_gaussians = True
    has_samples = False
    backend_of = "gaussian_splatting"

    def forward(
        self,
        rays: RayBundle,
        field: RadianceField,
        background: BackgroundFunction,
        needs: frozenset[str] = frozenset(),
        generator: torch.Generator | None = None,
    ) -> RenderOutput:
        """Render whole pinhole images; raises ConfigError for other rays, or a field that has no Gaussians."""
        height, width = rays.rays_d.shape[1:3]
        centers, matrices = pinhole(rays)
        gaussians = field.gaussians(centers, needs, rays.light_positions)
        if gaussians is None:
            raise ConfigError("gaussian-rasterizer renders Gaussians only; use geometry_type: gaussians.")
        with section("project"):
            screen = project_gaussians(
                gaussians.means,
                gaussians.scales,
                gaussians.quaternions,
                gaussians.opacities,
                centers,
                matrices,
                height,
                width,
            )
        if gaussians.record_screen_gradients is not None and screen.means.requires_grad:
            _record_gradients(screen, gaussians, height, width)
        distances = (gaussians.means - centers[:, None]).norm(dim=-1, keepdim=True)
        columns = [gaussians.rgb, distances]
        if gaussians.normal is not None:
            columns.append(gaussians.normal)
        with section("blend"):
            values = torch.cat(columns, dim=-1)
            blended, opacity = blend(screen, gaussians.opacities, values, height, width, self.cfg.backend)
        behind = background(rays.rays_d, generator)
        rgb, depth, normal = blended[..., :3], blended[..., 3:4], None
        if gaussians.normal is not None:
            normal = 0.5 * (unit(blended[..., 4:]) + 1) * opacity
        n_samples = int(screen.visible.sum())
        return RenderOutput(rgb + (1 - opacity) * behind, opacity, depth, behind, normal, n_samples=n_samples)


def _record_gradients(screen: ScreenGaussians, gaussians: GaussianViews, height: int, width: int) -> None:
    """Pass on the screen-space gradients of this pass, in units of half images as 3DGS's thresholds are."""
    record, visible = gaussians.record_screen_gradients, screen.visible
    assert record is not None

    def hook(gradient: Tensor) -> None:
        record(torch.stack([0.5 * width * gradient[..., 0], 0.5 * height * gradient[..., 1]], dim=-1), visible)

    screen.means.register_hook(hook)
