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
    """Return camera positions d (cos e cos a, cos e sin a, sin e) on spheres around the origin.

    Args:
        elevation_deg: B, in [-90, 90], positive above the horizon.
        azimuth_deg: B, 0 on +x, growing towards +y.
        distance: B, to the origin in world units.

    Returns:
        B 3, world positions.

    Example:
        >>> import torch
        >>> from zero123s.ops.cameras import orbit_positions
        >>> e, a, d = torch.tensor([0.0, 90.0]), torch.tensor([90.0, 0.0]), torch.tensor([2.0, 3.0])
        >>> orbit_positions(e, a, d).round(decimals=3).abs().tolist()
        [[0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]
    """
    e, a = torch.deg2rad(elevation_deg), torch.deg2rad(azimuth_deg)
    direction = torch.stack([torch.cos(e) * torch.cos(a), torch.cos(e) * torch.sin(a), torch.sin(e)], dim=-1)
    return distance[:, None] * direction


def look_at(
    position: Float[Tensor, "B 3"], center: Float[Tensor, "B 3"], up: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    """Return camera-to-world matrices of cameras that look at `center`.

    A camera straight above or below its centre has no defined right axis for up = z; it then takes +y as right, the
    limit of the azimuth-0 orbit.

    Args:
        position: B 3, camera positions in the world.
        center: B 3, the look-at points; not equal to `position`.
        up: B 3, world direction that is up in the image; any length.

    Returns:
        B 4 4, with columns right | up | back | position.

    Example:
        >>> import torch
        >>> from zero123s.ops.cameras import look_at
        >>> c2w = look_at(torch.tensor([[3.0, 0, 0]]), torch.zeros(1, 3), torch.tensor([[0, 0, 1.0]]))
        >>> c2w[0, :3].int().tolist()
        [[0, 0, 1, 3], [1, 0, 0, 0], [0, 1, 0, 0]]
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
    """Return cameras that look at the origin from the given orbit angles; numbers are broadcast to the batch.

    Args:
        elevation_deg: B or a number, in [-90, 90].
        azimuth_deg: B or a number, 0 on +x, growing towards +y.
        distance: B or a number, to the origin in world units.
        fovy_deg: B or a number, vertical field of view in (0, 180).
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        B cameras.

    Example:
        >>> import torch
        >>> from zero123s.ops.cameras import orbit_cameras
        >>> cameras = orbit_cameras(0.0, torch.tensor([0.0, 180.0]), distance=2.0)
        >>> len(cameras), cameras.positions[:, 0].tolist()
        (2, [2.0, -2.0])
    """
    values = [
        torch.as_tensor(v, dtype=torch.float32).reshape(-1) for v in (elevation_deg, azimuth_deg, distance, fovy_deg)
    ]
    elevation, azimuth, dist, fovy = [v.contiguous() for v in torch.broadcast_tensors(*values)]
    position = orbit_positions(elevation, azimuth, dist)
    up = position.new_tensor([0.0, 0.0, 1.0]).expand_as(position)
    c2w = look_at(position, torch.zeros_like(position), up)
    return Cameras(c2w, fovy, elevation, azimuth, dist, height, width)


def camera_directions(fovy_deg: Float[Tensor, "B"], height: int, width: int) -> Float[Tensor, "B H W 3"]:
    """Return the directions through the pixel centres in the camera's frame, (x - W/2) / f, -(y - H/2) / f, -1.

    Args:
        fovy_deg: B, vertical field of view in (0, 180).
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        B H W 3, not normalised; row 0 on top, pixel centres at +0.5.

    Example:
        >>> import torch
        >>> from zero123s.ops.cameras import camera_directions
        >>> camera_directions(torch.tensor([90.0]), 2, 2)[0, 0].round(decimals=4).tolist()
        [[-0.5, 0.5, -1.0], [0.5, 0.5, -1.0]]
    """
    kwargs = {"dtype": fovy_deg.dtype, "device": fovy_deg.device}
    focal = 0.5 * height / torch.tan(0.5 * torch.deg2rad(fovy_deg))
    # In few operations: on a GPU each takes longer to start than to run.
    x = torch.arange(0.5 - width / 2, width / 2, **kwargs) / focal[:, None]
    y = torch.arange(0.5 - height / 2, height / 2, **kwargs) / -focal[:, None]
    shape = (*focal.shape, height, width)
    z = torch.full((), -1.0, **kwargs)
    return torch.stack([x[:, None].expand(shape), y[..., None].expand(shape), z.expand(shape)], dim=-1)


def generate_rays(cameras: Cameras) -> RayBundle:
    """Return one ray through every pixel centre; the light is at the camera unless the cameras carry lights.

    Args:
        cameras: B cameras.

    Returns:
        Origins and unit directions of B H W rays, and B light positions.

    Example:
        >>> from zero123s.ops.cameras import generate_rays, orbit_cameras
        >>> rays = generate_rays(orbit_cameras(0.0, 0.0, distance=2.0, height=3, width=3))
        >>> rays.rays_d.shape, rays.rays_d[0, 1, 1].round(decimals=4).abs().tolist()  # the middle looks along -x
        (torch.Size([1, 3, 3, 3]), [1.0, 0.0, 0.0])
    """
    directions = camera_directions(cameras.fovy_deg, cameras.height, cameras.width)
    rotation = cameras.c2w[:, None, None, :3, :3]
    rays_d = F.normalize((rotation * directions[..., None, :]).sum(-1), dim=-1)
    rays_o = cameras.positions[:, None, None].expand_as(rays_d)
    lights = cameras.positions if cameras.light_positions is None else cameras.light_positions
    return RayBundle(rays_o, rays_d, lights)


def cameras_from_matrices(
    c2w: Float[Tensor, "B 4 4"], fovy_deg: Float[Tensor, "B"], height: int, width: int
) -> Cameras:
    """Return cameras of given poses, their orbit angles derived from the positions relative to the origin.

    Args:
        c2w: B 4 4, camera-to-world matrices with columns right | up | back | position.
        fovy_deg: B, vertical field of view in (0, 180).
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        B cameras.

    Example:
        >>> from zero123s.ops.cameras import cameras_from_matrices, orbit_cameras
        >>> orbit = orbit_cameras(30.0, -90.0, distance=2.0)
        >>> found = cameras_from_matrices(orbit.c2w, orbit.fovy_deg, 64, 64)
        >>> round(found.elevation_deg.item(), 3), round(found.azimuth_deg.item(), 3), round(found.distance.item(), 3)
        (30.0, -90.0, 2.0)
    """
    position = c2w[:, :3, 3]
    distance = position.norm(dim=-1).clamp_min(1e-8)
    elevation = torch.rad2deg(torch.asin((position[:, 2] / distance).clamp(-1, 1)))
    azimuth = torch.rad2deg(torch.atan2(position[:, 1], position[:, 0]))
    return Cameras(c2w, fovy_deg, elevation, azimuth, distance, height, width)


def project(points: Float[Tensor, "N 3"], cameras: Cameras) -> Float[Tensor, "B N 3"]:
    """Project world points to the pixels of every view.

    Args:
        points: N 3, world positions.
        cameras: B cameras.

    Returns:
        B N 3: pixel coordinates (x, y) with centres at +0.5, and depth along the viewing axis in world units, negative
        behind the camera.

    Example:
        >>> import torch
        >>> from zero123s.ops.cameras import orbit_cameras, project
        >>> camera = orbit_cameras(0.0, 0.0, distance=2.0, height=64, width=64)
        >>> project(torch.zeros(1, 3), camera).round(decimals=3).tolist()  # the origin is at the image's centre
        [[[32.0, 32.0, 2.0]]]
    """
    relative = points[None] - cameras.positions[:, None]
    local = relative @ cameras.c2w[:, :3, :3]
    focal = 0.5 * cameras.height / torch.tan(0.5 * torch.deg2rad(cameras.fovy_deg))
    depth = -local[..., 2]
    x = cameras.width / 2 + focal[:, None] * local[..., 0] / depth
    y = cameras.height / 2 - focal[:, None] * local[..., 1] / depth
    return torch.stack([x, y, depth], dim=-1)


def sphere_fit_distance(radius: float, fovy_deg: float) -> float:
    """Return the distance at which a sphere touches the upper and lower edge of the image.

    Args:
        radius: of a sphere around the look-at point, in world units.
        fovy_deg: vertical field of view in (0, 180).

    Returns:
        radius / sin(fovy / 2), in world units.

    Example:
        >>> from zero123s.ops.cameras import sphere_fit_distance
        >>> round(sphere_fit_distance(0.5, 60.0), 6)
        1.0
    """
    return radius / math.sin(math.radians(fovy_deg) / 2)


def with_lights(cameras: Cameras, light_positions: Float[Tensor, "B 3"]) -> Cameras:
    """Return the cameras with one point light each.

    Args:
        cameras: B cameras.
        light_positions: B 3, world positions.

    Returns:
        The same views; `generate_rays` hands their lights on.
    """
    return replace(cameras, light_positions=light_positions)
