"""The occupancy grid: thresholds, excluded cells, reproducibility."""

import torch

from zero123s.ops.occupancy import OccupancyGrid


def _ball(x: torch.Tensor) -> torch.Tensor:
    return (x.norm(dim=-1) < 0.6).float()


def test_a_ball_is_found_on_due_steps():
    grid = OccupancyGrid([-1, -1, -1, 1, 1, 1], 8)
    assert not grid.update(3, _ball)
    assert not grid.binaries.any()
    assert grid.update(16, _ball, torch.Generator().manual_seed(0))
    assert grid.binaries[0, 4, 4, 4]
    assert not grid.binaries[0, 0, 0, 0]


def test_excluded_cells_are_never_evaluated():
    grid = OccupancyGrid([-1, -1, -1, 1, 1, 1], 4)
    lower = torch.zeros(4, 4, 4, dtype=torch.bool)
    lower[:2] = True
    grid.mark_all_occupied()
    grid.mark_empty(lower)
    points = []
    for step in (0, 512):
        grid.update(step, lambda x: (points.append(x), torch.ones(len(x)))[1], torch.Generator().manual_seed(0))
    assert torch.cat(points)[:, 0].min() >= 0
    assert not grid.binaries[0, :2].any()


def test_values_decay_to_empty():
    grid = OccupancyGrid([-1, -1, -1, 1, 1, 1], 4)
    grid.update(0, lambda x: torch.where(x[:, 0] > 0, 0.02, 0.0), torch.Generator().manual_seed(0))
    assert grid.binaries.sum() == 32
    grid.update(16, lambda x: torch.where(x[:, 0] > 0, 0.0, 1.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(grid.occs.max(), torch.tensor(1.0))
    torch.testing.assert_close(grid.occs.min(), torch.tensor(0.02 * 0.95))
