import math

import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.ops.compositing import composite, composite_alpha, ray_indices_of, visibility
from zero123s.ops.occupancy import OccupancyGrid
from zero123s.ops.ray_marching import intersect_aabb, keep, march, pack

AABB = torch.tensor([-1.0, -1, -1, 1, 1, 1])


def full_grid(resolution: int = 4) -> torch.Tensor:
    return torch.ones(1, resolution, resolution, resolution, dtype=torch.bool)


def test_box_is_entered_and_left_where_geometry_says():
    rays_o = torch.tensor([[-3.0, 0, 0], [0.0, 0, 0], [0.0, 5, 0]])
    rays_d = torch.tensor([[1.0, 0, 0], [0.0, 1, 0], [1.0, 0, 0]])
    enter, leave = intersect_aabb(rays_o, rays_d, AABB)
    torch.testing.assert_close(enter[:2], torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(leave[:2], torch.tensor([4.0, 1.0]))
    assert enter[2] > leave[2]


def test_samples_cover_exactly_the_occupied_cells():
    grid = torch.zeros_like(full_grid())
    grid[0, 1, 2, 2] = True  # x in [-0.5, 0]
    rays_o, rays_d = torch.tensor([[-3.0, 0.1, 0.1]]), torch.tensor([[1.0, 0, 0]])
    samples = march(rays_o, rays_d, AABB, grid, step_size=0.125)
    torch.testing.assert_close(samples.t_starts, torch.tensor([2.5, 2.625, 2.75, 2.875]))
    assert samples.packed_info.tolist() == [[0, 4]]


def test_rays_without_samples_are_fine():
    rays_o, rays_d = torch.tensor([[0.0, 5, 0], [-3.0, 0, 0]]), torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    samples = march(rays_o, rays_d, AABB, full_grid(), 0.5)
    assert samples.packed_info.tolist() == [[0, 0], [0, 4]]
    nothing = march(rays_o[:1], rays_d[:1], AABB, full_grid(), 0.5)
    assert len(nothing) == 0
    _, opacity, depth, rgb = composite(
        nothing.t_starts, nothing.t_starts, nothing.t_ends, nothing.packed_info, torch.zeros(0, 3)
    )
    assert (opacity.tolist(), depth.tolist(), rgb.tolist()) == ([0.0], [0.0], [[0.0, 0.0, 0.0]])


def test_jitter_moves_a_ray_by_less_than_one_step():
    rays = generate_rays(orbit_cameras(0.0, 0.0, height=8, width=8))
    rays_o, rays_d = rays.rays_o.reshape(-1, 3), rays.rays_d.reshape(-1, 3)
    jitter = torch.rand(64, generator=torch.Generator().manual_seed(0))
    moved = march(rays_o, rays_d, AABB, full_grid(), 0.1, jitter=jitter)
    enter, leave = intersect_aabb(rays_o, rays_d, AABB)
    middle = 0.5 * (moved.t_starts + moved.t_ends)
    assert (middle >= enter[moved.ray_indices]).all()
    assert (middle <= leave[moved.ray_indices]).all()
    assert (moved.packed_info[:, 1] - ((leave - enter) / 0.1)).abs().max() <= 1.01


def test_chunking_changes_nothing():
    rays = generate_rays(orbit_cameras(10.0, 30.0, height=9, width=7))
    rays_o, rays_d = rays.rays_o.reshape(-1, 3), rays.rays_d.reshape(-1, 3)
    grid = torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.6
    a, b = (march(rays_o, rays_d, AABB, grid, 0.05, chunk_rays=c) for c in (5, 1000))
    for name in ("ray_indices", "t_starts", "t_ends", "packed_info"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=0, rtol=0)


def test_unknown_backend_is_told():
    with pytest.raises(ConfigError, match="backend 'tpu'"):
        march(torch.zeros(1, 3), torch.ones(1, 3), AABB, full_grid(), 0.1, backend="tpu")


def slab(n: int, sigma: float, dtype=torch.float64):
    """A homogeneous slab of length 2 behind distance 1, seen by two rays; the second sees half of it."""
    edges = torch.linspace(1, 3, n + 1, dtype=dtype)
    t_starts = torch.cat([edges[:-1], edges[: n // 2]])
    t_ends = torch.cat([edges[1:], edges[1 : n // 2 + 1]])
    packed_info = torch.tensor([[0, n], [n, n // 2]])
    return torch.full_like(t_starts, sigma), t_starts, t_ends, packed_info


def test_homogeneous_slab_has_its_closed_form_opacity_and_depth():
    sigmas, t_starts, t_ends, packed_info = slab(4000, 1.5)
    values = t_starts.new_tensor([0.2, 0.9]).expand(len(t_starts), 2)
    weights, opacity, depth, colour = composite(sigmas, t_starts, t_ends, packed_info, values)
    expected = torch.tensor([1 - math.exp(-3.0), 1 - math.exp(-1.5)], dtype=torch.float64)
    torch.testing.assert_close(opacity, expected)
    torch.testing.assert_close(colour, expected[:, None] * torch.tensor([[0.2, 0.9]], dtype=torch.float64))
    # integral of t sigma exp(-sigma (t - 1)) from 1 to 3
    full = (1 + 1 / 1.5) - (3 + 1 / 1.5) * math.exp(-3.0)
    assert float(depth[0]) == pytest.approx(full, rel=1e-6)
    assert float(weights[:4000].sum()) == pytest.approx(float(opacity[0]))


def test_opacities_and_densities_agree():
    sigmas, t_starts, t_ends, packed_info = slab(50, 2.0)
    values = torch.rand(75, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alphas = -torch.expm1(-sigmas * (t_ends - t_starts))
    for a, b in zip(
        composite(sigmas, t_starts, t_ends, packed_info, values),
        composite_alpha(alphas, t_starts, t_ends, packed_info, values),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_gradients():
    _, t_starts, t_ends, packed_info = slab(6, 1.0)
    generator = torch.Generator().manual_seed(0)
    sigmas = (3 * torch.rand(9, generator=generator, dtype=torch.float64)).requires_grad_()
    values = torch.rand(9, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, v: composite(s, t_starts, t_ends, packed_info, v), (sigmas, values))


def test_only_samples_that_matter_are_visible():
    sigmas = torch.tensor([0.001, 100.0, 5.0, 0.5])
    t = torch.arange(4.0)
    packed_info = torch.tensor([[0, 3], [3, 1]])
    mask = visibility(sigmas, t, t + 1, packed_info, alpha_thre=0.01, early_stop_eps=1e-4)
    assert mask.tolist() == [False, True, False, True]
    kept = keep(march(torch.tensor([[-3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]), AABB, full_grid(), 0.5), mask)
    assert kept.packed_info.tolist() == [[0, 2]]
    assert ray_indices_of(pack(torch.tensor([0, 0, 2]), 3)).tolist() == [0, 0, 2]


def ball(x: torch.Tensor) -> torch.Tensor:
    return (x.norm(dim=-1) < 0.5).float()


def test_occupancy_finds_a_ball_and_forgets_it():
    grid = OccupancyGrid(bound=1.0, resolution=16)
    grid.update(0, ball, torch.Generator().manual_seed(0))
    cells = torch.nonzero(grid.binaries[0]) / 16 * 2 - 1 + 1 / 16
    assert cells.norm(dim=-1).max() < 0.5 + 0.11
    assert 0.03 < grid.binaries.float().mean() < 0.12  # 4/3 pi 0.5^3 / 8 = 0.065
    before = grid.binaries.clone()
    grid.update(3, lambda x: torch.zeros(len(x)), torch.Generator())
    assert torch.equal(grid.binaries, before), "steps between refreshes change nothing"
    for step in range(16, 16 * 120, 16):
        grid.update(step, lambda x: torch.zeros(len(x)), torch.Generator().manual_seed(step), warmup_steps=10**6)
    assert grid.occs.max() < 0.01


def test_occupancy_after_warm_up_keeps_what_is_there():
    grid = OccupancyGrid(bound=1.0, resolution=16)
    grid.update(0, ball, torch.Generator().manual_seed(0))
    core = grid.binaries[0, 7:9, 7:9, 7:9].all()
    for step in range(256, 256 + 160, 16):
        grid.update(step, ball, torch.Generator().manual_seed(step))
    assert core
    assert grid.binaries[0, 7:9, 7:9, 7:9].all()
    grid.mark_all()
    assert grid.binaries.all()
