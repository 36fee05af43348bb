"""Sample rays at a uniform step inside the occupied cells of a grid, as nerfacc's `traverse_grids` does."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.ray_marching import reference

__all__ = ["Samples", "march", "pack_info"]


class Samples(NamedTuple):
    """Samples of R rays, ray by ray; S may be 0."""

    ray_indices: Int[Tensor, "S"]
    t_starts: Float[Tensor, "S"]
    t_ends: Float[Tensor, "S"]
    packed_info: Int[Tensor, "R 2"]
    """First sample and number of samples of every ray."""

    def keep(self, mask: Bool[Tensor, "S"]) -> "Samples":
        """Return the samples where `mask` is true."""
        index = torch.nonzero(mask)[:, 0]
        rays = self.ray_indices.index_select(0, index)
        t_starts, t_ends = self.t_starts.index_select(0, index), self.t_ends.index_select(0, index)
        return Samples(rays, t_starts, t_ends, pack_info(rays, self.packed_info.shape[0]))

    def positions(
        self, rays_o: Float[Tensor, "R 3"], rays_d: Float[Tensor, "R 3"], index: Int[Tensor, "K"] | None = None
    ) -> Float[Tensor, "K 3"]:
        """Return the middles of all samples, or of those at `index`."""
        rays, t_starts, t_ends = self.ray_indices, self.t_starts, self.t_ends
        plain = rays_o.dtype != torch.float32 or rays_o.requires_grad or rays_d.requires_grad
        chosen = backends.resolve("ray_marching", "reference" if plain else "auto", rays_o.device)
        if chosen == "numba":
            from zero123s.ops.ray_marching import numba

            index = torch.arange(len(rays)) if index is None else index
            return numba.positions(index, rays, t_starts, t_ends, rays_o, rays_d)
        if chosen == "triton":
            from zero123s.ops.ray_marching import triton

            return triton.positions(index, rays, t_starts, t_ends, rays_o, rays_d)
        if index is not None:
            rays, t_starts, t_ends = rays[index], t_starts[index], t_ends[index]
        return rays_o[rays] + (0.5 * (t_starts + t_ends))[:, None] * rays_d[rays]


def pack_info(ray_indices: Int[Tensor, "S"], n_rays: int) -> Int[Tensor, "R 2"]:
    """Return first sample and count of each of `n_rays` rays from ascending ray indices."""
    rays = torch.arange(n_rays + 1, device=ray_indices.device)
    first = torch.searchsorted(ray_indices, rays)  # unlike bincount it needs no answer from a GPU
    return torch.stack([first[:-1], first[1:] - first[:-1]], dim=-1)


@torch.no_grad()
def march(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    aabb: Float[Tensor, "6"],
    binaries: Bool[Tensor, "*L X Y Z"],
    step_size: float,
    near: float = 0.0,
    far: float = 1e10,
    jitter: Float[Tensor, "R"] | None = None,
    backend: str = "auto",
) -> Samples:
    """Return the intervals of length `step_size` whose midpoints lie in occupied cells of the box `aabb`.

    Every ray's intervals start at `near + jitter * step_size` with `jitter` in [0, 1) (None = 0). `rays_d` are unit
    vectors; `aabb` is (min, max). A leading axis of one level in `binaries` (nerfacc's layout) is accepted.
    """
    if rays_o.dtype != torch.float32 and backend == "auto":
        backend = "reference"  # the kernels are written for float32
    chosen = backends.resolve("ray_marching", backend, rays_o.device)
    start = rays_o.new_full(rays_o.shape[:1], near)
    if jitter is not None:
        start = start + jitter * step_size
    grid = binaries.reshape(binaries.shape[-3:])
    arguments = (rays_o.detach(), rays_d.detach(), aabb.to(rays_o), grid, step_size, start, far)
    if chosen == "numba":
        from zero123s.ops.ray_marching import numba

        rays, t_starts = numba.march(*arguments)
    elif chosen == "triton":
        from zero123s.ops.ray_marching import triton

        rays, t_starts = triton.march(*arguments)
    elif chosen == "nerfacc":
        from zero123s.ops.ray_marching import nerfacc

        rays, t_starts = nerfacc.march(*arguments)
    else:
        rays, t_starts = reference.march(*arguments)
    return Samples(rays, t_starts, t_starts + step_size, pack_info(rays, rays_o.shape[0]))
