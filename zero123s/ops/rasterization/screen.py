"""From rays back to the pinhole camera behind them, and from the world to its pixels."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.errors import ConfigError
from zero123s.structures import RayBundle

MAX_ERROR = 1e-3
"""Largest difference between a ray and the pinhole's, as a length of unit vectors; rounding makes some 1e-7."""


def pinhole(rays: RayBundle) -> tuple[Float[Tensor, "B 3"], Float[Tensor, "B 3 3"]]:
    """Return the pinhole cameras whose pixels the rays are: centres, and P with P (x - centre) = depth (u, v, 1).

    u and v are pixel coordinates (centres at +0.5, row 0 on top), depth is along the viewing axis.

    Args:
        rays: B H W rays of whole images.

    Returns:
        Centres B 3 in the world, and matrices P, B 3 3.

    Raises:
        ConfigError: the rays are not those of whole pinhole images of at least 2 x 2 pixels.

    Example:
        >>> from zero123s.ops.cameras import generate_rays, orbit_cameras
        >>> from zero123s.ops.rasterization import pinhole
        >>> centers, matrices = pinhole(generate_rays(orbit_cameras(0.0, 0.0, distance=2.0, height=8, width=8)))
        >>> u, v, depth = (matrices[0] @ (0 - centers[0])).tolist()  # of the world's origin
        >>> round(u / depth, 3), round(v / depth, 3), round(depth, 3)
        (4.0, 4.0, 2.0)
    """
    batch, height, width, _ = rays.rays_d.shape
    if height < 2 or width < 2:
        raise ConfigError(f"a mesh cannot be rasterised for images of {height}x{width} pixels; give 2x2 or more.")
    if batch == 0:
        return rays.rays_d.new_zeros(0, 3), rays.rays_d.new_zeros(0, 3, 3)
    d, centers = rays.rays_d.detach().double(), rays.rays_o[:, 0, 0]
    plane = _image_plane(d)
    v, u = torch.meshgrid(*(torch.arange(n, device=d.device) + 0.5 for n in (height, width)), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).double()
    expected = F.normalize(pixels @ plane[:, None].mT, dim=-1)
    directions, origins = (expected - d).abs().amax(), (rays.rays_o - centers[:, None, None]).abs().amax()
    if not float(torch.maximum(directions, origins)) <= MAX_ERROR:  # not a number is an error, too
        raise ConfigError("a mesh can only be rasterised for the rays of whole pinhole images; use a volume renderer.")
    return centers, torch.linalg.inv(plane).to(rays.rays_d)


def _image_plane(d: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 3"]:
    """Return the matrices that take (u, v, 1) to the point of a pixel at depth 1, from the rays of the four corners."""
    height, width = d.shape[1:3]
    top_left, top_right, bottom_left, bottom_right = d[:, 0, 0], d[:, 0, -1], d[:, -1, 0], d[:, -1, -1]
    # On a plane, right + below - first = fourth; the length of the fourth is free.
    lengths = torch.linalg.solve(torch.stack([-top_left, top_right, bottom_left], dim=-1), bottom_right)
    first = lengths[:, :1] * top_left
    by_u = (lengths[:, 1:2] * top_right - first) / (width - 1)
    by_v = (lengths[:, 2:] * bottom_left - first) / (height - 1)
    corner = first - 0.5 * by_u - 0.5 * by_v
    axis = F.normalize(torch.linalg.cross(by_u, by_v), dim=-1)
    return torch.stack([by_u, by_v, corner], dim=-1) / (axis * corner).sum(-1).abs()[:, None, None]


def to_screen(
    vertices: Float[Tensor, "V 3"], centers: Float[Tensor, "B 3"], matrices: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "B V 3"]:
    """Project world points to the screens of cameras.

    Args:
        vertices: V 3, world positions.
        centers: B 3, camera positions, as `pinhole` returns them.
        matrices: B 3 3, as `pinhole` returns them.

    Returns:
        B V 3: pixel coordinates u and v, and depth along the viewing axis in world units; differentiable.
    """
    # No matrix product: mixed precision would round it to parts of pixels.
    at = ((vertices - centers[:, None])[..., None, :] * matrices[:, None]).sum(-1)
    depth = at[..., 2:]
    safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
    return torch.cat([at[..., :2] / safe, depth], dim=-1)
