"""A grid that remembers where there is density, in nerfacc's one-level layout."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class OccupancyGrid(nn.Module):
    """Which cells of the cube [-bound, bound]^3 may hold something.

    The buffers are those of nerfacc's OccGridEstimator with one level, so state moves between the two.

    Args:
        bound: half edge of the cube.
        resolution: cells per axis.
    """

    aabbs: Float[Tensor, "1 6"]
    occs: Float[Tensor, "C"]
    binaries: Tensor

    def __init__(self, bound: float, resolution: int = 32) -> None:
        super().__init__()
        self.resolution = resolution
        self.register_buffer("aabbs", torch.tensor([[-bound] * 3 + [bound] * 3], dtype=torch.float32))
        self.register_buffer("occs", torch.zeros(resolution**3))
        self.register_buffer("binaries", torch.zeros(1, resolution, resolution, resolution, dtype=torch.bool))

    def mark_all(self) -> None:
        """Take every cell for occupied: no pruning."""
        self.occs.fill_(1.0)
        self.binaries.fill_(True)

    @torch.no_grad()
    def update(
        self,
        step: int,
        occ_fn: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]],
        generator: torch.Generator,
        *,
        every: int = 16,
        warmup_steps: int = 256,
        ema_decay: float = 0.95,
        occ_thre: float = 0.01,
    ) -> None:
        """Refresh the grid at every `every`-th step.

        All cells before `warmup_steps`, then a quarter of them drawn uniformly and a quarter of the occupied ones;
        occs = max(ema_decay * occs, occ_fn(random point of the cell)); occupied above min(occ_thre, mean(occs)).

        Args:
            step: global step.
            occ_fn: optical thickness of one marching step (density * step size) at world positions.
            generator: CPU generator of this step.
            every: steps between refreshes.
            warmup_steps: steps during which all cells are looked at.
            ema_decay: how fast an empty cell is forgotten.
            occ_thre: occupancy above which a cell is kept.
        """
        if step % every:
            return
        cells = self._cells_to_visit(step < warmup_steps, generator)
        points = self._random_points(cells, generator)
        values = occ_fn(points).to(self.occs.dtype)
        self.occs[cells] = torch.maximum(self.occs[cells] * ema_decay, values)
        threshold = min(occ_thre, float(self.occs[self.occs >= 0].mean()))
        self.binaries.copy_((self.occs > threshold).view_as(self.binaries))

    def _cells_to_visit(self, everything: bool, generator: torch.Generator) -> Tensor:
        total, device = self.occs.numel(), self.occs.device
        if everything:
            return torch.arange(total, device=device)
        n = total // 4
        uniform = torch.randint(total, (n,), generator=generator)
        occupied = torch.nonzero(self.binaries.flatten())[:, 0].cpu()
        if len(occupied) > n:
            occupied = occupied[torch.randint(len(occupied), (n,), generator=generator)]
        # Sorted and unique: a cell visited twice would be written twice, in no defined order.
        return torch.unique(torch.cat([uniform, occupied])).to(device)

    def _random_points(self, cells: Tensor, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        r = self.resolution
        index = torch.stack([cells // (r * r), cells // r % r, cells % r], dim=-1)
        jitter = torch.rand(len(cells), 3, generator=generator).to(self.occs)
        low, high = self.aabbs[0, :3], self.aabbs[0, 3:]
        return low + (index + jitter) / r * (high - low)
