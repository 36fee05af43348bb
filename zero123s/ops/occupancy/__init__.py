"""Occupancy grid: the cells of the scene's box that may hold matter (Mueller et al. 2022; nerfacc's buffers)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zero123s.randomness import generator_on

__all__ = ["OccupancyGrid"]


class OccupancyGrid(nn.Module):
    """One level of occupancy values and flags over a box.

    The buffers have the names and shapes of nerfacc's `OccGridEstimator`.

    Args:
        aabb: 6, the box (min, max) in world units.
        resolution: cells per axis.

    Example:
        >>> import torch
        >>> from zero123s.ops.occupancy import OccupancyGrid
        >>> grid = OccupancyGrid([-1.0, -1, -1, 1, 1, 1], resolution=4)
        >>> inside = lambda x: (x[:, 0] > 0).float()  # the half x > 0 is full
        >>> grid.update(step=0, density_fn=inside), grid.binaries.shape, grid.binaries.sum().item()
        (True, torch.Size([1, 4, 4, 4]), 32)
    """

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
        """Mark every cell as occupied, for a renderer without pruning."""
        self.binaries.fill_(True)

    @torch.no_grad()
    def mark_empty(self, cells: Bool[Tensor, "X Y Z"]) -> None:
        """Exclude cells for good: they are never evaluated nor sampled again (their value is -1, as in nerfacc).

        Args:
            cells: X Y Z, True for the cells to exclude.
        """
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
        """Every `n` steps, update the occupancy values and flags from the field.

        Args:
            step: global step of the training.
            density_fn: returns the occupancy (density times step size) at N 3 world positions.
            generator: source of the random positions in the cells; None = torch's global one.
            n: steps between updates.
            warmup_steps: until then all cells are evaluated, later a random quarter of all and as many occupied ones.
            ema_decay: factor of the old value, of which and the new one the larger is kept.
            occ_thre: a cell is occupied above the smaller of this and the mean value.
            chunk: positions evaluated at once.

        Returns:
            Whether this step updated the grid.
        """
        if step % n != 0:
            return False
        generator = generator_on(self.occs.device, generator)
        cells = self._cells_to_evaluate(step < warmup_steps, generator)
        for part in cells.split(chunk):
            occupancy = density_fn(self._random_points(part, generator)).reshape(-1)
            self.occs[part] = torch.maximum(self.occs[part] * ema_decay, occupancy.to(self.occs))
        known = self.occs[self.occs >= 0]
        # A grid whose cells are all excluded has no mean; it stays empty.
        threshold = known.mean().clamp(max=occ_thre) if known.numel() else occ_thre
        self.binaries.copy_((self.occs > threshold).view_as(self.binaries))
        return True

    def _cells_to_evaluate(self, all_cells: bool, generator: torch.Generator | None) -> Int[Tensor, "N"]:
        """Return flat indices, each at most once, without the excluded cells."""
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
