"""The volume that a small Zero123's pose lift predicts from an input image, as a radiance field in world coordinates."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.diffusion.lift import DENSITY_GAIN, DENSITY_SCALE, DENSITY_SHIFT, PoseLift
from zero123s.diffusion.model import Zero123Model
from zero123s.ops.volume_sampling import sample_volume
from zero123s.structures import Cameras, FieldOutput, ReferenceView


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

    def gaussians(
        self, centers: Float[Tensor, "B 3"], needs: frozenset[str], light_positions: Float[Tensor, "B 3"]
    ) -> None:
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


@torch.no_grad()
def lift_views(model: Zero123Model, reference: ReferenceView, bound: float, max_views: int = 8) -> LiftedField:
    """Predict the object as a radiance field from its input views.

    Args:
        model: a Zero123 with a pose lift, as the bundled small model.
        reference: the input views, square.
        bound: half edge of the scene's cube, world units.
        max_views: of more views, this many are used, evenly chosen.

    Returns:
        The mean of the volumes that the views are lifted to.
    """
    assert model.lift is not None
    assert reference.rgb.shape[1] == reference.rgb.shape[2]
    device = next(model.lift.parameters()).device
    reference = evenly_chosen(reference, max_views).to(device)
    cameras = reference.cameras
    angles = (cameras.elevation_deg, cameras.azimuth_deg, cameras.distance)
    latents = model.encode_image(composite_on_white(reference, model.image_size))
    volumes = model.lift_volume(latents, model.pose_vector(*angles, *angles))
    assert volumes is not None
    return LiftedField(model.lift, volumes, cameras, bound)


def evenly_chosen(reference: ReferenceView, count: int) -> ReferenceView:
    """Return at most `count` of the views, evenly chosen by their numbers.

    Args:
        reference: any number of views.
        count: at least 1.

    Returns:
        The views themselves where there are no more than `count`.
    """
    n = len(reference.cameras)
    if n <= count:
        return reference
    chosen = torch.linspace(0, n - 1, count).round().long()
    return ReferenceView(reference.cameras.select(chosen), reference.rgb[chosen], reference.mask[chosen])


def composite_on_white(reference: ReferenceView, size: int) -> Float[Tensor, "V 3 size size"]:
    """Return the views over white at a model's input resolution, channels first.

    Args:
        reference: V views with their masks.
        size: edge of the result in pixels; pixels of the views are averaged.

    Returns:
        V 3 size size.
    """
    on_white = reference.rgb * reference.mask + (1 - reference.mask)
    return F.interpolate(on_white.permute(0, 3, 1, 2), (size, size), mode="area")
