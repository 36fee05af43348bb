"""3D Gaussians to 2D Gaussians on the screen: EWA splatting's local affine approximation (Zwicker et al. 2001)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LOW_PASS = 0.3
"""Added to the variances on the screen, in square pixels, so that no Gaussian falls between pixel centres (3DGS)."""
MIN_ALPHA = 1 / 255
"""Opacity at a pixel below which a Gaussian adds nothing there (3DGS)."""
NEAR = 0.01
"""Depth along the viewing axis in front of which Gaussians are culled, world units."""
FRUSTUM = 1.3
"""Times the image's half size within which a centre is linearised; the approximation is useless far outside."""


@dataclass(frozen=True)
class ScreenGaussians:
    """N Gaussians projected to the screens of B cameras."""

    means: Float[Tensor, "B N 2"]
    """Pixel coordinates (u, v), pixel centres at +0.5, row 0 on top."""
    conics: Float[Tensor, "B N 3"]
    """Inverse covariance (xx, xy, yy), in 1 / pixels^2."""
    depths: Float[Tensor, "B N"]
    """Along the viewing axis."""
    half_extents: Float[Tensor, "B N 2"]
    """Half edges of the box in pixels outside which the opacity is below MIN_ALPHA; 0 where culled. No gradient."""

    @property
    def visible(self) -> Bool[Tensor, "B N"]:
        """Which Gaussians may show in which view."""
        return (self.half_extents > 0).all(-1)


def rotation_matrices(quaternions: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Return the rotation matrices of quaternions.

    Args:
        quaternions: N 4, (w, x, y, z) of any length above 0.

    Returns:
        N 3 3.

    Example:
        >>> import torch
        >>> from zero123s.ops.gaussian_splatting import rotation_matrices
        >>> half_turn_about_z = torch.tensor([[0.0, 0.0, 0.0, 2.0]])
        >>> rotation_matrices(half_turn_about_z)[0].diagonal().tolist()
        [-1.0, -1.0, 1.0]
    """
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def covariance_factors(scales: Float[Tensor, "N 3"], quaternions: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Return M = R S with covariance M M^T (Kerbl et al. 2023, eq. 6).

    Args:
        scales: N 3, standard deviations along the Gaussian's own axes, world units.
        quaternions: N 4, (w, x, y, z) of any length above 0.

    Returns:
        N 3 3.

    Example:
        >>> import torch
        >>> from zero123s.ops.gaussian_splatting import covariance_factors
        >>> m = covariance_factors(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0, 0, 0]]))
        >>> (m @ m.mT)[0].diagonal().tolist()
        [1.0, 4.0, 9.0]
    """
    return rotation_matrices(quaternions) * scales[:, None, :]


def project_gaussians(
    means: Float[Tensor, "N 3"],
    scales: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    opacities: Float[Tensor, "N"],
    centers: Float[Tensor, "B 3"],
    matrices: Float[Tensor, "B 3 3"],
    height: int,
    width: int,
) -> ScreenGaussians:
    """Project Gaussians to the screens of pinhole cameras; differentiable in means, scales and quaternions.

    With P (x - center) = depth (u, v, 1), the Jacobian of (u, v) at the mean is (P_u - u P_d, P_v - v P_d) / depth, and
    the covariance on the screen J M M^T J^T + LOW_PASS I (Kerbl et al. 2023, eq. 5).

    Args:
        means: N 3, world positions.
        scales: N 3, standard deviations along the Gaussian's own axes, world units, above 0.
        quaternions: N 4, (w, x, y, z) of any length above 0.
        opacities: N, in [0, 1]; they decide how far a Gaussian reaches.
        centers: B 3, camera positions as `ops.rasterization.pinhole` returns them.
        matrices: B 3 3, camera matrices as `ops.rasterization.pinhole` returns them.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        The Gaussians on the screen; those behind the camera or off the screen have half extents of 0.

    Example:
        >>> import torch
        >>> from zero123s.ops.cameras import generate_rays, orbit_cameras
        >>> from zero123s.ops.gaussian_splatting import project_gaussians
        >>> from zero123s.ops.rasterization import pinhole
        >>> cameras = pinhole(generate_rays(orbit_cameras(0.0, 0.0, distance=3.8, height=32, width=32)))
        >>> means = torch.tensor([[0.0, 0, 0], [9.0, 0, 0]])  # the second is behind the camera
        >>> rest = torch.full((2, 3), 0.1), torch.eye(4)[[0, 0]], torch.full((2,), 0.9)
        >>> screen = project_gaussians(means, *rest, *cameras, 32, 32)
        >>> screen.means[0, 0].round().tolist(), round(screen.depths[0, 0].item(), 2), screen.visible.tolist()
        ([16.0, 16.0], 3.8, [[True, False]])
    """
    # No matrix product over positions: mixed precision would round it to parts of pixels.
    local = ((means[None] - centers[:, None])[..., None, :] * matrices[:, None]).sum(-1)
    depths = local[..., 2]
    in_front = depths > NEAR
    safe = torch.where(in_front, depths, torch.ones_like(depths))
    uv = torch.where(in_front[..., None], local[..., :2] / safe[..., None], torch.zeros_like(local[..., :2]))
    jacobian = _jacobian(uv, safe, matrices, height, width)
    factors = (jacobian[..., None] * covariance_factors(scales, quaternions)[None, :, None]).sum(-2)  # B N 2 3
    covariances = (factors[..., :, None, :] * factors[..., None, :, :]).sum(-1)
    xx, xy, yy = covariances[..., 0, 0] + LOW_PASS, covariances[..., 0, 1], covariances[..., 1, 1] + LOW_PASS
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[..., None]
    half_extents = _half_extents(uv, xx, yy, opacities, in_front & (determinant > 0), height, width)
    return ScreenGaussians(uv, conics, depths, half_extents)


def _jacobian(
    uv: Float[Tensor, "B N 2"], depths: Float[Tensor, "B N"], matrices: Float[Tensor, "B 3 3"], height: int, width: int
) -> Float[Tensor, "B N 2 3"]:
    # Numbers, not a tensor of them: a GPU would have to wait for its copy.
    halves = zip(uv.unbind(-1), (0.5 * width, 0.5 * height), strict=True)
    at = torch.stack([t.clamp(half * (1 - FRUSTUM), half * (1 + FRUSTUM)) for t, half in halves], dim=-1)
    rows = matrices[:, None, :2] - at[..., None] * matrices[:, None, 2:]
    return rows / depths[..., None, None]


@torch.no_grad()
def _half_extents(
    uv: Float[Tensor, "B N 2"],
    xx: Float[Tensor, "B N"],
    yy: Float[Tensor, "B N"],
    opacities: Float[Tensor, "N"],
    valid: Bool[Tensor, "B N"],
    height: int,
    width: int,
) -> Float[Tensor, "B N 2"]:
    """Return the box of the ellipse on which the opacity falls to MIN_ALPHA; zeros where it misses every pixel."""
    reach = (2 * torch.log(opacities / MIN_ALPHA).clamp_min(0)).sqrt()
    extents = torch.stack([xx.sqrt(), yy.sqrt()], dim=-1) * reach[:, None]
    begin, end = uv - extents, uv + extents
    on_screen = (end > 0.5).all(-1) & (begin[..., 0] < width - 0.5) & (begin[..., 1] < height - 0.5)
    kept = valid & on_screen & (opacities > MIN_ALPHA)
    return torch.where(kept[..., None], extents, torch.zeros_like(extents))
