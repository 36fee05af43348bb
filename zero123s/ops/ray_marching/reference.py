"""Plain-torch ray march: tests every interval between entering and leaving the box."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zero123s.ops.constants import constant

_CHUNK, _GPU_CHUNK = 1 << 20, 1 << 23
"""Candidate intervals tested at once, about 100 bytes each; on a GPU every further part is a wait."""


def intersect_box(
    rays_o: Float[Tensor, "R 3"], rays_d: Float[Tensor, "R 3"], aabb: Float[Tensor, "6"]
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Return the distances at which each line enters and leaves a box.

    Args:
        rays_o: R 3, origins.
        rays_d: R 3, directions; zero components are allowed.
        aabb: 6, the box (min, max).

    Returns:
        Enter R and leave R, in lengths of the directions; enter >= leave where the line misses the box.

    Example:
        >>> import torch
        >>> from zero123s.ops.ray_marching.reference import intersect_box
        >>> rays_o = torch.tensor([[-2.0, 0, 0], [-2.0, 5, 0]])
        >>> enter, leave = intersect_box(rays_o, torch.tensor([[1.0, 0, 0]] * 2), torch.tensor([-1.0, -1, -1, 1, 1, 1]))
        >>> enter[0].item(), leave[0].item(), (enter < leave).tolist()
        (1.0, 3.0, [True, False])
    """
    # A direction of exactly zero gives +-inf, or NaN on the face itself, which counts as touching from inside.
    t0 = (aabb[:3] - rays_o) / rays_d
    t1 = (aabb[3:] - rays_o) / rays_d
    enter = torch.minimum(t0, t1).nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(-1)
    leave = torch.maximum(t0, t1).nan_to_num(torch.inf, torch.inf, -torch.inf).amin(-1)
    return enter, leave


def march(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    aabb: Float[Tensor, "6"],
    binaries: Bool[Tensor, "X Y Z"],
    step_size: float,
    start: Float[Tensor, "R"],
    far: float,
) -> tuple[Int[Tensor, "S"], Float[Tensor, "S"]]:
    """Return the intervals whose midpoints lie in occupied cells; see `zero123s.ops.ray_marching.march`.

    Args:
        rays_o: R 3, origins in world units.
        rays_d: R 3, unit directions.
        aabb: 6, the grid's box (min, max).
        binaries: X Y Z, True for occupied cells.
        step_size: length of an interval.
        start: R, distance at which the first interval of each ray starts.
        far: distance at which sampling ends.

    Returns:
        Ray index S and start S of each interval, ray by ray.
    """
    enter, leave = intersect_box(rays_o, rays_d, aabb)
    enter = torch.maximum(enter, start)
    leave = leave.clamp(max=far)
    if len(rays_o) == 0:
        return torch.zeros(0, dtype=torch.int64, device=start.device), start.new_empty(0)
    first = torch.ceil((enter - start) / step_size - 0.5).clamp(min=0)
    hits = leave > enter
    n_steps = int(torch.where(hits, (leave - start) / step_size - first, 0.0).max().ceil()) + 1
    steps = torch.arange(n_steps, device=start.device)
    resolution = constant(binaries.shape, start, torch.int64)
    rays, t_starts = [], []
    at_once = max(1, (_CHUNK if start.device.type == "cpu" else _GPU_CHUNK) // n_steps)
    for begin in range(0, len(rays_o), at_once):
        part = slice(begin, begin + at_once)
        t = start[part, None] + (first[part, None] + steps) * step_size
        middle = t + 0.5 * step_size
        x = rays_o[part, None] + middle[..., None] * rays_d[part, None]
        cell = ((x - aabb[:3]) / (aabb[3:] - aabb[:3]) * resolution).long()
        cell = torch.minimum(cell.clamp(min=0), resolution - 1)
        inside = (middle >= enter[part, None]) & (middle < leave[part, None])
        row, column = torch.nonzero(inside & binaries[cell.unbind(-1)], as_tuple=True)
        rays.append(row + begin)
        t_starts.append(t[row, column])
    return torch.cat(rays), torch.cat(t_starts)
