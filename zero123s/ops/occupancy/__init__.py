"""Which cells of the scene's box may hold something (Mueller et al. 2022; buffers as nerfacc's OccGridEstimator)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zero123s.randomness import generator_on

__all__ = ["OccupancyGrid"]


class OccupancyGrid(nn.Module):
    """One level of occupancy values and flags over the box `aabb` (min, max), `resolution` cells per axis."""

    aabbs: Float[Tensor, "1 6"]
    occs: Float[Tensor, "XYZ"]
    binaries: Bool[Tensor, "1 X Y Z"]
    resolution: Int[Tensor, "3"]

    def __init__(self, aabb: Float[Tensor, "6"] | list[float], resolution: int = 128) -> None:
        super().__init__()
        self.register_buffer("resolution", torch.tensor([resolution] * 3, dtype=torch.int32))
        self.register_buffer("aabbs", torch.as_tensor(aabb, dtype=torch.float32).reshape(1, 6).clone())
        self.register_buffer("occs", torch.zeros(resolution**3))
        self.register_buffer("binaries", torch.zeros(1, resolution, resolution, resolution, dtype=torch.bool))

    @torch.no_grad()
    def mark_all_occupied(self) -> None:
        """Let every cell be sampled: what a renderer without pruning needs."""
        self.binaries.fill_(True)

    @torch.no_grad()
    def mark_empty(self, cells: Bool[Tensor, "X Y Z"]) -> None:
        """Exclude `cells` for good: they are never evaluated nor sampled again (nerfacc stores -1)."""
        self.occs[cells.flatten()] = -1.0
        self.binaries[0] &= ~cells

    @torch.no_grad()
    def update(
        self,
        step: int,
        density_fn: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]],
        generator: torch.Generator | None = None,
        n: int = 16,
        warmup_steps: int = 256,
        ema_decay: float = 0.95,
        occ_thre: float = 0.01,
        chunk: int = 1 << 18,
    ) -> bool:
        """Every `n` steps, refresh the flags from occupancy values (density * step size); return whether it did.

        `density_fn` gets world positions. Until `warmup_steps` all cells are looked at, later a random quarter and
        up to as many occupied ones. A cell is occupied above min(`occ_thre`, mean).
        """
        if step % n != 0:
            return False
        generator = generator_on(self.occs.device, generator)
        cells = self._cells_to_look_at(step < warmup_steps, generator)
        for part in cells.split(chunk):
            occupancy = density_fn(self._random_points(part, generator)).reshape(-1)
            self.occs[part] = torch.maximum(self.occs[part] * ema_decay, occupancy.to(self.occs))
        known = self.occs[self.occs >= 0]
        # A grid whose cells are all excluded has no mean; it stays empty.
        threshold = known.mean().clamp(max=occ_thre) if known.numel() else occ_thre
        self.binaries.copy_((self.occs > threshold).view_as(self.binaries))
        return True

    def _cells_to_look_at(self, all_cells: bool, generator: torch.Generator | None) -> Int[Tensor, "N"]:
        """Return flat indices, each at most once, without the cells known to be empty."""
        if all_cells:
            return torch.nonzero(self.occs >= 0)[:, 0]
        quarter = self.occs.numel() // 4
        uniform = self._randint(self.occs.numel(), quarter, generator)
        occupied = torch.nonzero(self.binaries.flatten())[:, 0]
        if quarter < occupied.numel():
            occupied = occupied[self._randint(occupied.numel(), quarter, generator)]
        # A cell drawn twice would be evaluated twice for one write, whose winner is undefined.
        cells = torch.cat([uniform, occupied]).unique()
        return cells[self.occs[cells] >= 0]

    def _randint(self, high: int, size: int, generator: torch.Generator | None) -> Int[Tensor, "N"]:
        return torch.randint(high, (size,), generator=generator, device=self.occs.device)

    def _random_points(self, cells: Int[Tensor, "N"], generator: torch.Generator | None) -> Float[Tensor, "N 3"]:
        """Return one uniformly random world position in each cell."""
        _, _, ny, nz = self.binaries.shape
        corner = torch.stack([cells // (ny * nz), cells // nz % ny, cells % nz], dim=-1)
        offset = torch.rand(corner.shape, generator=generator, device=self.occs.device)
        low, high = self.aabbs[0, :3], self.aabbs[0, 3:]
        return low + (corner + offset) / self.resolution * (high - low)
