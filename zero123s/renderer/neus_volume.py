"""Volume rendering of a signed distance field (NeuS, Wang et al. 2021; VolSDF, Yariv et al. 2021)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.errors import ConfigError
from zero123s.ops.compositing import Composited, composite_alpha
from zero123s.ops.ray_marching import Samples
from zero123s.renderer.base import RENDERERS
from zero123s.renderer.nerf_volume import NerfVolumeRenderer
from zero123s.structures import FieldOutput, RadianceField

EPS = 1e-5
"""Keeps alpha defined deep inside, where both values of the CDF vanish; it makes the inside opaque."""
MAX_VOLSDF_SHARPNESS = 80.0


@RENDERERS.register("neus-volume-renderer")
class NeusVolumeRenderer(NerfVolumeRenderer):
    """Opacity from the drop of a logistic function of the distance over each step, with a learned sharpness."""

    @dataclass
    class Config(NerfVolumeRenderer.Config):
        """Settings of `neus-volume-renderer`."""

        learned_variance_init: float = 0.3
        """Initial v of the sharpness exp(10 v), in 1 / world units; 0.3 gives 20."""
        cos_anneal_end_steps: int = 0
        """Steps of NeuS's cosine annealing, after which rays that graze or leave a surface no longer count as entering
        it; 0 = none.
        """
        use_volsdf: bool = False
        """Use the density of VolSDF instead."""

    cfg: Config
    needs_sdf = True
    always_needed = frozenset({"rgb", "sdf"})

    def __init__(self, cfg: Config, bound: float) -> None:
        super().__init__(cfg, bound)
        if cfg.cos_anneal_end_steps < 0:
            raise ConfigError(f"renderer.cos_anneal_end_steps: must be >= 0, got {cfg.cos_anneal_end_steps}.")
        self.variance = nn.Parameter(torch.tensor(float(cfg.learned_variance_init)))
        self.cos_anneal_ratio = 1.0
        # A cell whose centre is further from the surface than this holds none of it.
        self.cell_radius = math.sqrt(3) * bound / cfg.grid_resolution

    def on_step(self, step: int) -> None:
        """Move the annealing of the ray's angle."""
        end = self.cfg.cos_anneal_end_steps
        self.cos_anneal_ratio = 1.0 if end == 0 else min(1.0, step / end)

    @property
    def inv_std(self) -> Float[Tensor, ""]:
        """The sharpness exp(10 v), in 1 / world units."""
        return torch.exp(10 * self.variance).clamp(1e-6, 1e6)

    def alpha(
        self, sdf: Float[Tensor, "S"], cosine: Float[Tensor, "S"] | float, dt: Float[Tensor, "S"] | float
    ) -> Float[Tensor, "S"]:
        """Return the opacity of steps of length `dt` around points at signed distance `sdf`.

        `cosine` <= 0 is the slope of the distance along the ray: -1 head on. NeuS eq. 13 on the distances half a step
        before and behind, alpha = (S(before) - S(behind)) / S(before) with S(f) = sigmoid(inv_std f), in [0, 1].
        """
        if self.cfg.use_volsdf:
            return -torch.expm1(-volsdf_density(sdf, self.inv_std) * dt)
        half = 0.5 * cosine * dt
        before, behind = torch.sigmoid((sdf - half) * self.inv_std), torch.sigmoid((sdf + half) * self.inv_std)
        return ((before - behind + EPS) / (before + EPS)).clamp(0, 1)

    def annealed_cosine(self, normal: Float[Tensor, "S 3"], dirs: Float[Tensor, "S 3"]) -> Float[Tensor, "S"]:
        """Return the never positive slope along the ray, blended from a half-space version that never dies."""
        cosine = (normal * dirs).sum(-1)
        soft, true = F.relu(0.5 - 0.5 * cosine), F.relu(-cosine)
        return -(soft * (1 - self.cos_anneal_ratio) + true * self.cos_anneal_ratio)

    def occupancy(self, field: RadianceField, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return the opacity for a perpendicular ray at the largest decrease of the distance within a cell."""
        return self.alpha(-field.surface_level(x) - self.cell_radius, -1.0, self.step_size)

    def opacity(
        self, field: RadianceField, x: Float[Tensor, "S 3"], dt: Float[Tensor, "S"] | float
    ) -> Float[Tensor, "S"]:
        """Return the opacity of steps for a perpendicular ray."""
        return self.alpha(-field.surface_level(x), -1.0, dt)

    def composite(
        self, out: FieldOutput, dirs: Float[Tensor, "S 3"], samples: Samples, values: Float[Tensor, "S C"]
    ) -> Composited:
        """Composite by the opacity of each step; raises ConfigError for a field without a signed distance."""
        if out.sdf is None or out.sdf_grad is None:
            raise ConfigError(
                "neus-volume-renderer needs a geometry with a signed distance, such as geometry_type: implicit-sdf."
            )
        dt = samples.t_ends - samples.t_starts
        alphas = self.alpha(out.sdf, self.annealed_cosine(F.normalize(out.sdf_grad, dim=-1), dirs), dt)
        return composite_alpha(alphas, samples.t_starts, samples.t_ends, samples.packed_info, values)


def volsdf_density(sdf: Float[Tensor, "N"], inv_std: Float[Tensor, ""]) -> Float[Tensor, "N"]:
    """Return 1/b times the Laplace CDF of -sdf with scale b = 1 / inv_std (VolSDF eq. 2-3)."""
    sharpness = inv_std.clamp(max=MAX_VOLSDF_SHARPNESS)
    return sharpness * (0.5 + 0.5 * sdf.sign() * torch.expm1(-sdf.abs() * sharpness))
