"""Cameras on an orbit and the rays of their pixels.

World: right-handed, z up; azimuth 0 on +x, growing towards +y; elevation positive above the horizon.
Camera: OpenGL axes (x right, y up, looking along -z). Pixel centres at +0.5, row 0 on top.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.structures import Cameras, RayBundle


def orbit_positions(
    elevation_deg: Float[Tensor, "B"], azimuth_deg: Float[Tensor, "B"], distance: Float[Tensor, "B"]
) -> Float[Tensor, "B 3"]:
    """Return d (cos e cos a, cos e sin a, sin e)."""
    e, a = torch.deg2rad(elevation_deg), torch.deg2rad(azimuth_deg)
    direction = torch.stack([torch.cos(e) * torch.cos(a), torch.cos(e) * torch.sin(a), torch.sin(e)], dim=-1)
    return distance[:, None] * direction


def look_at(
    position: Float[Tensor, "B 3"], center: Float[Tensor, "B 3"], up: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    """Return camera-to-world matrices (right | up | back | position) of cameras that look at `center`.

    A camera straight above or below its centre has no defined right axis for up = z; it then takes +y as right,
    the limit of the azimuth-0 orbit.
    """
    back = F.normalize(position - center, dim=-1)
    right = torch.linalg.cross(up, back)
    degenerate = right.norm(dim=-1, keepdim=True) < 1e-6
    right = torch.where(degenerate, right.new_tensor([0.0, 1.0, 0.0]).expand_as(right), right)
    right = F.normalize(right, dim=-1)
    true_up = F.normalize(torch.linalg.cross(back, right), dim=-1)
    c2w = torch.zeros(position.shape[0], 4, 4, dtype=position.dtype, device=position.device)
    c2w[:, :3] = torch.stack([right, true_up, back, position], dim=-1)
    c2w[:, 3, 3] = 1
    return c2w


def orbit_cameras(
    elevation_deg: Float[Tensor, "B"] | float,
    azimuth_deg: Float[Tensor, "B"] | float,
    distance: Float[Tensor, "B"] | float = 3.8,
    fovy_deg: Float[Tensor, "B"] | float = 20.0,
    height: int = 64,
    width: int = 64,
) -> Cameras:
    """Return cameras that look at the origin from the given orbit angles; numbers are broadcast to the batch."""
    values = [
        torch.as_tensor(v, dtype=torch.float32).reshape(-1) for v in (elevation_deg, azimuth_deg, distance, fovy_deg)
    ]
    elevation, azimuth, dist, fovy = [v.contiguous() for v in torch.broadcast_tensors(*values)]
    position = orbit_positions(elevation, azimuth, dist)
    up = position.new_tensor([0.0, 0.0, 1.0]).expand_as(position)
    c2w = look_at(position, torch.zeros_like(position), up)
    return Cameras(c2w, fovy, elevation, azimuth, dist, height, width)


def camera_directions(fovy_deg: Float[Tensor, "B"], height: int, width: int) -> Float[Tensor, "B H W 3"]:
    """Return unnormalised camera-frame pixel directions ((i + .5 - W/2)/f, -(j + .5 - H/2)/f, -1)."""
    kwargs = {"dtype": fovy_deg.dtype, "device": fovy_deg.device}
    focal = 0.5 * height / torch.tan(0.5 * torch.deg2rad(fovy_deg))
    x = torch.arange(width, **kwargs) + 0.5 - width / 2
    y = torch.arange(height, **kwargs) + 0.5 - height / 2
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    f = focal[:, None, None]
    return torch.stack([grid_x / f, -grid_y / f, torch.full_like(grid_x, -1.0).expand_as(grid_x / f)], dim=-1)


def generate_rays(cameras: Cameras) -> RayBundle:
    """Return one unit ray per pixel centre; the light stands at the camera unless the cameras carry lights."""
    directions = camera_directions(cameras.fovy_deg, cameras.height, cameras.width)
    rotation = cameras.c2w[:, None, None, :3, :3]
    rays_d = F.normalize((rotation * directions[..., None, :]).sum(-1), dim=-1)
    rays_o = cameras.positions[:, None, None].expand_as(rays_d)
    lights = cameras.positions if cameras.light_positions is None else cameras.light_positions
    return RayBundle(rays_o, rays_d, lights)


def cameras_from_matrices(
    c2w: Float[Tensor, "B 4 4"], fovy_deg: Float[Tensor, "B"], height: int, width: int
) -> Cameras:
    """Return cameras for given poses, their orbit angles derived from the positions relative to the origin."""
    position = c2w[:, :3, 3]
    distance = position.norm(dim=-1).clamp_min(1e-8)
    elevation = torch.rad2deg(torch.asin((position[:, 2] / distance).clamp(-1, 1)))
    azimuth = torch.rad2deg(torch.atan2(position[:, 1], position[:, 0]))
    return Cameras(c2w, fovy_deg, elevation, azimuth, distance, height, width)


def project(points: Float[Tensor, "N 3"], cameras: Cameras) -> Float[Tensor, "B N 3"]:
    """Return pixel coordinates (x, y) and depth along the viewing axis of world points in every view."""
    relative = points[None] - cameras.positions[:, None]
    local = relative @ cameras.c2w[:, :3, :3]
    focal = 0.5 * cameras.height / torch.tan(0.5 * torch.deg2rad(cameras.fovy_deg))
    depth = -local[..., 2]
    x = cameras.width / 2 + focal[:, None] * local[..., 0] / depth
    y = cameras.height / 2 - focal[:, None] * local[..., 1] / depth
    return torch.stack([x, y, depth], dim=-1)


def sphere_fit_distance(radius: float, fovy_deg: float) -> float:
    """Return the distance at which a sphere of `radius` just touches the frame's upper and lower edge."""
    return radius / math.sin(math.radians(fovy_deg) / 2)


def with_lights(cameras: Cameras, light_positions: Float[Tensor, "B 3"]) -> Cameras:
    """Return the cameras with a point light each."""
    return replace(cameras, light_positions=light_positions)
