"""Plain-torch ray march: tests every interval between entering and leaving the box."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CHUNK = 1 << 20
"""Candidate intervals looked at together: bounds memory to some tens of MiB."""


def intersect_box(
    rays_o: Float[Tensor, "R 3"], rays_d: Float[Tensor, "R 3"], aabb: Float[Tensor, "6"]
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Return the distances at which each line enters and leaves the box; enter >= leave where it misses."""
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
    """Return ray index and start of each interval whose midpoint is in an occupied cell."""
    enter, leave = intersect_box(rays_o, rays_d, aabb)
    enter = torch.maximum(enter, start)
    leave = leave.clamp(max=far)
    hit = torch.nonzero(leave > enter)[:, 0]
    if hit.numel() == 0:
        return hit, start.new_empty(0)
    first = torch.ceil((enter[hit] - start[hit]) / step_size - 0.5).clamp(min=0)
    n_steps = int(((leave[hit] - start[hit]) / step_size - first).max().ceil()) + 1
    steps = torch.arange(n_steps, device=start.device)
    resolution = torch.tensor(binaries.shape, device=start.device)
    rays, t_starts = [], []
    for part, first_step in zip(
        hit.split(max(1, _CHUNK // n_steps)), first.split(max(1, _CHUNK // n_steps)), strict=True
    ):
        t = start[part, None] + (first_step[:, None] + steps) * step_size
        middle = t + 0.5 * step_size
        inside = (middle >= enter[part, None]) & (middle < leave[part, None])
        row, column = torch.nonzero(inside, as_tuple=True)
        ray = part[row]
        x = rays_o[ray] + middle[row, column, None] * rays_d[ray]
        cell = ((x - aabb[:3]) / (aabb[3:] - aabb[:3]) * resolution).long()
        cell = torch.minimum(cell.clamp(min=0), resolution - 1)
        occupied = binaries[cell[:, 0], cell[:, 1], cell[:, 2]]
        rays.append(ray[occupied])
        t_starts.append(t[row, column][occupied])
    return torch.cat(rays), torch.cat(t_starts)
