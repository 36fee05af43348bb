"""Sample rays at a uniform step inside the occupied cells of a grid, as nerfacc's `traverse_grids` does."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.compositing import visible_samples
from zero123s.ops.ray_marching import reference

__all__ = ["Samples", "march", "march_visible", "pack_info"]


class Samples(NamedTuple):
    """Samples of R rays, ray by ray; S may be 0."""

    ray_indices: Int[Tensor, "S"]
    t_starts: Float[Tensor, "S"]
    t_ends: Float[Tensor, "S"]
    packed_info: Int[Tensor, "R 2"]
    """First sample and number of samples of every ray."""

    def keep(self, mask: Bool[Tensor, "S"]) -> "Samples":
        """Return the samples where a mask is true.

        Args:
            mask: S.

        Returns:
            The chosen samples of the same R rays.

        Example:
            >>> import torch
            >>> from zero123s.ops.ray_marching import Samples, pack_info
            >>> rays, t = torch.tensor([0, 0, 1]), torch.tensor([0.0, 1.0, 0.0])
            >>> samples = Samples(rays, t, t + 1, pack_info(rays, 2))
            >>> samples.keep(torch.tensor([False, True, True])).packed_info.tolist()
            [[0, 1], [1, 1]]
        """
        index = torch.nonzero(mask)[:, 0]
        rays = self.ray_indices.index_select(0, index)
        t_starts, t_ends = self.t_starts.index_select(0, index), self.t_ends.index_select(0, index)
        return Samples(rays, t_starts, t_ends, pack_info(rays, self.packed_info.shape[0]))

    def positions(
        self, rays_o: Float[Tensor, "R 3"], rays_d: Float[Tensor, "R 3"], index: Int[Tensor, "K"] | None = None
    ) -> Float[Tensor, "K 3"]:
        """Return the midpoints of samples in the world.

        Args:
            rays_o: R 3, origins of the rays.
            rays_d: R 3, unit directions of the rays.
            index: K, numbers of the samples; None = all of them.

        Returns:
            K 3, differentiable in `rays_o` and `rays_d`.
        """
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
    """Return first sample and number of samples of every ray.

    Args:
        ray_indices: S, ray of every sample, ascending.
        n_rays: number of rays R.

    Returns:
        R 2.

    Example:
        >>> import torch
        >>> from zero123s.ops.ray_marching import pack_info
        >>> pack_info(torch.tensor([0, 0, 2]), n_rays=3).tolist()
        [[0, 2], [2, 0], [2, 1]]
    """
    if ray_indices.device.type == "cpu":
        counts = torch.bincount(ray_indices, minlength=n_rays)
        return torch.stack([counts.cumsum(0) - counts, counts], dim=-1)
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
    """Sample rays at a uniform step inside the occupied cells of a grid.

    Every ray is divided into intervals of length `step_size` from `near + jitter * step_size` on; those whose midpoints
    lie in occupied cells are returned.

    Args:
        rays_o: R 3, origins in world units.
        rays_d: R 3, unit directions.
        aabb: 6, the grid's box (min, max) in world units.
        binaries: X Y Z or 1 X Y Z (nerfacc's layout), True for occupied cells.
        step_size: length of an interval in world units.
        near: distance along the ray at which sampling starts.
        far: distance at which it ends.
        jitter: R, in [0, 1), shifts the intervals of each ray; None = 0.
        backend: "auto", "reference", "numba" (CPU), "triton" or "nerfacc" (CUDA).

    Returns:
        The intervals, ray by ray; without gradients.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.ray_marching import march
        >>> binaries = torch.zeros(2, 1, 1, dtype=torch.bool)
        >>> binaries[1] = True  # of the cube [-1, 1]^3, the half x > 0 is occupied
        >>> rays_o, rays_d = torch.tensor([[-2.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
        >>> samples = march(rays_o, rays_d, torch.tensor([-1.0, -1, -1, 1, 1, 1]), binaries, step_size=0.25)
        >>> samples.t_starts.tolist(), samples.packed_info.tolist()
        ([2.0, 2.25, 2.5, 2.75], [[0, 4]])
        >>> samples.positions(rays_o, rays_d)[0].tolist()
        [0.125, 0.0, 0.0]
    """
    chosen, arguments = _arguments(rays_o, rays_d, aabb, binaries, step_size, near, far, jitter, backend)
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


@torch.no_grad()
def march_visible(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    aabb: Float[Tensor, "6"],
    binaries: Bool[Tensor, "*L X Y Z"],
    step_size: float,
    alphas_at: Callable[[Float[Tensor, "K 3"]], Float[Tensor, "K"]],
    alpha_thre: float = 0.0,
    early_stop_eps: float = 1e-4,
    near: float = 0.0,
    far: float = 1e10,
    jitter: Float[Tensor, "R"] | None = None,
    backend: str = "auto",
) -> Samples:
    """Sample rays as `march` does, and return the samples that `visible_samples` finds visible.

    Args:
        rays_o: R 3, origins in world units.
        rays_d: R 3, unit directions.
        aabb: 6, the grid's box (min, max) in world units.
        binaries: X Y Z or 1 X Y Z, True for occupied cells.
        step_size: length of an interval in world units.
        alphas_at: returns the opacities K of samples at K 3. On the CPU it is called with a few samples of each ray at a
            time, front to back, and rays are marched no further than light reaches.
        alpha_thre: smallest opacity of a sample that is kept.
        early_stop_eps: smallest transmittance before a sample that is kept.
        near: distance along the ray at which sampling starts.
        far: distance at which it ends.
        jitter: R, in [0, 1), shifts the intervals of each ray; None = 0.
        backend: "auto", "reference", "numba" (CPU), "triton" or "nerfacc" (CUDA).

    Returns:
        The visible samples, ray by ray; without gradients.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.ray_marching import march_visible
        >>> full, box = torch.ones(2, 2, 2, dtype=torch.bool), torch.tensor([-1.0, -1, -1, 1, 1, 1])
        >>> rays_o, rays_d = torch.tensor([[-2.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
        >>> wall = lambda x: (x[:, 0] > 0).float()  # light ends at the first sample behind 0
        >>> march_visible(rays_o, rays_d, box, full, 0.25, wall, 0.01).t_starts.tolist()
        [2.0]
    """
    chosen, arguments = _arguments(rays_o, rays_d, aabb, binaries, step_size, near, far, jitter, backend)
    if chosen == "numba":
        from zero123s.ops.ray_marching import numba

        rays, t_starts, counts = numba.march_visible(*arguments, alphas_at, alpha_thre, early_stop_eps)
        info = torch.stack([counts.cumsum(0) - counts, counts], dim=-1)
        return Samples(rays, t_starts, t_starts + step_size, info)
    samples = march(rays_o, rays_d, aabb, binaries, step_size, near, far, jitter, backend)

    def at(index: Int[Tensor, "K"]) -> Float[Tensor, "K"]:
        return alphas_at(samples.positions(rays_o, rays_d, index))

    visible = visible_samples(at, samples.ray_indices, samples.packed_info, alpha_thre, early_stop_eps)
    return samples.keep(visible)


def _arguments(
    rays_o: Tensor,
    rays_d: Tensor,
    aabb: Tensor,
    binaries: Tensor,
    step_size: float,
    near: float,
    far: float,
    jitter: Tensor | None,
    backend: str,
) -> tuple[str, tuple[Tensor, Tensor, Tensor, Tensor, float, Tensor, float]]:
    """Return the backend and the arguments of its march."""
    if rays_o.dtype != torch.float32 and backend == "auto":
        backend = "reference"  # the kernels are written for float32
    chosen = backends.resolve("ray_marching", backend, rays_o.device)
    start = rays_o.new_full(rays_o.shape[:1], near)
    if jitter is not None:
        start = start + jitter * step_size
    grid = binaries.reshape(binaries.shape[-3:])
    return chosen, (rays_o.detach(), rays_d.detach(), aabb.to(rays_o), grid, step_size, start, far)
