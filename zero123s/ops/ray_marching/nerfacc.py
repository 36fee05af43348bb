"""Ray marching by nerfacc's kernels on CUDA."""

import torch
from jaxtyping import Bool, Float, Int
from nerfacc.grid import traverse_grids
from torch import Tensor


@torch.no_grad()
def march(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    aabb: Float[Tensor, "6"],
    binaries: Bool[Tensor, "X Y Z"],
    step_size: float,
    start: Float[Tensor, "R"],
    far: float,
) -> tuple[Int[Tensor, "S"], Float[Tensor, "S"]]:
    """Return ray index and start of every interval; as `zero123s.ops.ray_marching.reference.march`."""
    intervals, samples, _ = traverse_grids(
        rays_o,
        rays_d,
        binaries[None],
        aabb[None],
        near_planes=start,
        far_planes=torch.full_like(start, far),
        step_size=step_size,
        cone_angle=0.0,
    )
    return samples.ray_indices.long(), intervals.vals[intervals.is_left]
