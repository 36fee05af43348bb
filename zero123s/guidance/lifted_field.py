"""The volume that a small Zero123's pose lift predicts from an input image, as a radiance field in world coordinates."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.diffusion.lift import DENSITY_GAIN, DENSITY_SCALE, DENSITY_SHIFT, PoseLift
from zero123s.ops.volume_sampling import sample_volume
from zero123s.structures import Cameras, FieldOutput


class LiftedField:
    """Density and colour of lifted volumes; a `RadianceField` without parameters.

    The lift is defined for cameras of one distance and one field of view: a scene rendered with another camera is scaled so that
    its frame has the same height at the origin. Several volumes, one of each input view, are averaged.

    Args:
        lift: the network that made the volumes.
        volumes: V D H W G, its output.
        cameras: the V cameras that the input views were taken by.
        bound: half edge of the scene's cube, world units.
    """

    def __init__(self, lift: PoseLift, volumes: Float[Tensor, "V D H W G"], cameras: Cameras, bound: float) -> None:
        self.lift, self.volumes, self.bound = lift, volumes.float(), bound
        self.cameras = cameras.to(volumes.device)
        half_frames = self.cameras.distance * torch.tan(torch.deg2rad(self.cameras.fovy_deg) / 2)
        self.scales = lift.distance * lift.tangent / half_frames

    @torch.no_grad()
    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Return volume density per world unit."""
        return self._sample(x)[0]

    surface_level = density

    @torch.no_grad()
    def query(
        self,
        x: Float[Tensor, "N 3"],
        dirs: Float[Tensor, "N 3"],
        needs: frozenset[str],
        light_positions: Float[Tensor, "N 3"] | None = None,
    ) -> FieldOutput:
        """Return density and colour; normals and signed distances are not available, whatever `needs` names."""
        sigma, rgb = self._sample(x)
        return FieldOutput(sigma, rgb)

    def gaussians(self, *args: object) -> None:
        """Return None: this field is not made of Gaussians."""

    def _sample(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
        x = x.to(self.volumes.device, torch.float32)
        sigmas, colors = [], []
        for i, (volume, scale) in enumerate(zip(self.volumes, self.scales, strict=True)):
            angle = -math.radians(float(self.cameras.azimuth_deg[i]))
            turn = x.new_tensor(
                [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
            )
            polar = torch.deg2rad(90 - self.cameras.elevation_deg[i : i + 1]).to(x)
            at = self.lift.to_volume((scale * x @ turn.T)[None], polar)
            values = sample_volume(volume[None], at)[0]
            inside = (at[0].abs() <= 1).all(-1)
            raw = F.softplus(DENSITY_GAIN * values[:, 0] - DENSITY_SHIFT) * DENSITY_SCALE * scale
            sigmas.append(raw * inside)
            colors.append((0.5 * values[:, 1:4] + 0.5).clamp(0, 1))
        sigma, rgb = torch.stack(sigmas), torch.stack(colors)
        weights = (sigma + 1e-6)[..., None]
        return sigma.mean(0), (weights * rgb).sum(0) / weights.sum(0)
