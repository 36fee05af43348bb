"""Marching rays through an occupancy grid: which intervals along which rays hold something."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zero123s.errors import ConfigError


@dataclass(frozen=True)
class Samples:
    """Intervals along rays, packed: the samples of a ray lie together, in order of distance."""

    ray_indices: Int[Tensor, "S"]
    t_starts: Float[Tensor, "S"]
    t_ends: Float[Tensor, "S"]
    packed_info: Int[Tensor, "R 2"]
    """First sample and number of samples of every ray."""

    def __len__(self) -> int:
        return self.ray_indices.shape[0]


def intersect_aabb(
    rays_o: Float[Tensor, "R 3"], rays_d: Float[Tensor, "R 3"], aabb: Float[Tensor, "6"]
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Return where rays enter and leave a box (slab method); enter > leave where they miss it."""
    safe = torch.where(rays_d.abs() < 1e-12, torch.full_like(rays_d, 1e-12), rays_d)
    t0, t1 = (aabb[:3] - rays_o) / safe, (aabb[3:] - rays_o) / safe
    return torch.minimum(t0, t1).amax(-1), torch.maximum(t0, t1).amin(-1)


def pack(ray_indices: Int[Tensor, "S"], n_rays: int) -> Int[Tensor, "R 2"]:
    """Return first sample and count per ray of sorted ray indices."""
    counts = torch.bincount(ray_indices, minlength=n_rays)
    return torch.stack([counts.cumsum(0) - counts, counts], dim=-1)


def keep(samples: Samples, mask: Bool[Tensor, "S"]) -> Samples:
    """Return the samples where `mask` holds."""
    ray_indices = samples.ray_indices[mask]
    packed_info = pack(ray_indices, samples.packed_info.shape[0])
    return Samples(ray_indices, samples.t_starts[mask], samples.t_ends[mask], packed_info)


@torch.no_grad()
def march(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    aabb: Float[Tensor, "6"],
    binaries: Bool[Tensor, "1 X Y Z"],
    step_size: float,
    near: float = 0.0,
    far: float = 1e10,
    jitter: Float[Tensor, "R"] | None = None,
    backend: str = "auto",
    chunk_rays: int = 4096,
) -> Samples:
    """Return the uniform intervals of `step_size` whose midpoints lie in occupied cells.

    Every ray's intervals start where it enters the box, moved back by `jitter` steps in [0, 1) where it is given.
    Not differentiable. Rays that hit nothing simply have no samples.

    Args:
        rays_o: origins.
        rays_d: unit directions.
        aabb: box (low xyz, high xyz) that the grid divides.
        binaries: occupied cells.
        step_size: length of an interval, world units.
        near: smallest distance.
        far: largest distance.
        jitter: stratified offsets.
        backend: "auto" or "reference".
        chunk_rays: rays looked at together; bounds the memory of the dense reference.
    """
    if backend not in ("auto", "reference"):
        raise ConfigError(f"Unknown marching backend '{backend}'. Known: auto, reference.")
    n_rays = rays_o.shape[0]
    enter, leave = intersect_aabb(rays_o, rays_d, aabb)
    enter, leave = enter.clamp_min(near), leave.clamp_max(far)
    start = enter if jitter is None else enter - jitter * step_size
    parts = []
    for first in range(0, n_rays, chunk_rays):
        rows = slice(first, first + chunk_rays)
        rays, t = _march_dense(
            rays_o[rows], rays_d[rows], aabb, binaries, step_size, start[rows], enter[rows], leave[rows]
        )
        parts.append((rays + first, t))
    ray_indices = torch.cat([p[0] for p in parts]) if parts else torch.zeros(0, dtype=torch.long, device=rays_o.device)
    t_starts = torch.cat([p[1] for p in parts]) if parts else rays_o.new_zeros(0)
    return Samples(ray_indices, t_starts, t_starts + step_size, pack(ray_indices, n_rays))


def _march_dense(
    rays_o: Tensor,
    rays_d: Tensor,
    aabb: Tensor,
    binaries: Tensor,
    step: float,
    start: Tensor,
    enter: Tensor,
    leave: Tensor,
) -> tuple[Tensor, Tensor]:
    longest = float((leave - start).amax().clamp_min(0)) if len(start) else 0.0
    n_steps = int(longest / step) + 1
    t = start[:, None] + step * torch.arange(n_steps, device=start.device, dtype=start.dtype)
    middle = t + 0.5 * step
    inside = (middle >= enter[:, None]) & (middle < leave[:, None])
    rays, steps = torch.nonzero(inside, as_tuple=True)
    x = rays_o[rays] + middle[rays, steps, None] * rays_d[rays]
    size = torch.tensor(binaries.shape[1:], device=x.device)
    cell = ((x - aabb[:3]) / (aabb[3:] - aabb[:3]) * size).long()
    cell = torch.minimum(cell.clamp_min(0), size - 1)
    occupied = binaries[0, cell[:, 0], cell[:, 1], cell[:, 2]]
    rays, steps = rays[occupied], steps[occupied]
    return rays, t[rays, steps]
