"""Gaussian splatting against closed forms; the fast blending against the reference."""

import math

import pytest
import torch

from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.ops.cameras import project as project_points
from zero123s.ops.gaussian_splatting import blend, project_gaussians, rotation_matrices
from zero123s.ops.gaussian_splatting.projection import LOW_PASS, ScreenGaussians
from zero123s.ops.rasterization import pinhole

SIZE = 32


def cameras(azimuth_deg=(0.0,), dtype=torch.float64, size=SIZE):
    views = orbit_cameras(10.0, torch.tensor(azimuth_deg), height=size, width=size)
    centers, matrices = pinhole(generate_rays(views))
    return views, centers.to(dtype), matrices.to(dtype)


def on_screen(means, variance, depths):
    """Round Gaussians of one view, given in pixels."""
    n = len(means)
    conics = torch.tensor([1 / variance, 0.0, 1 / variance], dtype=torch.float64).expand(1, n, 3)
    means = torch.tensor([means], dtype=torch.float64)
    extents = torch.full((1, n, 2), 100.0, dtype=torch.float64)
    return ScreenGaussians(means, conics, torch.tensor([depths], dtype=torch.float64), extents)


def random_cloud(n, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    means = 0.35 * torch.randn(n, 3, generator=g, dtype=torch.float64)
    scales = 0.02 + 0.05 * torch.rand(n, 3, generator=g, dtype=torch.float64)
    quaternions = torch.randn(n, 4, generator=g, dtype=torch.float64)
    opacities = torch.rand(n, generator=g, dtype=torch.float64)
    colors = torch.rand(n, 3, generator=g, dtype=torch.float64)
    return [t.to(dtype) for t in (means, scales, quaternions, opacities, colors)]


def render(cloud, centers, matrices, size=SIZE, backend="reference"):
    means, scales, quaternions, opacities, colors = cloud
    projected = project_gaussians(means, scales, quaternions, opacities, centers, matrices, size, size)
    values = torch.cat([colors.expand(len(centers), -1, -1), projected.depths[..., None]], dim=-1)
    return blend(projected, opacities, values, size, size, backend)


def test_one_gaussian_has_its_closed_form():
    projected = on_screen([(10.5, 12.5)], 4.0, [2.0])
    opacity = torch.tensor([0.8], dtype=torch.float64)
    image, covered = blend(projected, opacity, torch.full((1, 1, 1), 3.0, dtype=torch.float64), SIZE, SIZE)
    at = {(12, 10): 0.0, (12, 12): 2.0**2, (15, 14): 3.0**2 + 4.0**2}
    for (row, column), squared in at.items():
        expected = 0.8 * math.exp(-0.5 * squared / 4.0)
        assert covered[0, row, column, 0].item() == pytest.approx(expected, abs=1e-12)
        assert image[0, row, column, 0].item() == pytest.approx(3 * expected, abs=1e-12)
    assert covered[0, 0, 0, 0] == 0, "below 1/255 nothing is added"


def test_the_nearer_gaussian_covers_the_farther():
    opacities = torch.tensor([0.5, 0.6], dtype=torch.float64)
    values = torch.tensor([[[1.0], [10.0]]], dtype=torch.float64)
    for depths, expected in (([1.0, 2.0], 0.5 + 0.5 * 0.6 * 10), ([2.0, 1.0], 0.6 * 10 + 0.4 * 0.5)):
        projected = on_screen([(8.5, 8.5), (8.5, 8.5)], 4.0, depths)
        image, covered = blend(projected, opacities, values, SIZE, SIZE)
        assert image[0, 8, 8, 0].item() == pytest.approx(expected)
        assert covered[0, 8, 8, 0].item() == pytest.approx(1 - 0.5 * 0.4)


def test_opacity_is_capped_and_light_runs_out():
    n = 6
    projected = on_screen([(8.5, 8.5)] * n, 4.0, list(range(1, n + 1)))
    opacities = torch.ones(n, dtype=torch.float64)
    image, _ = blend(projected, opacities, torch.eye(n, dtype=torch.float64)[None], SIZE, SIZE)
    assert image[0, 8, 8].tolist() == pytest.approx([0.99, 0.01 * 0.99, 1e-4 * 0.99, 0, 0, 0], abs=1e-9)


def test_a_small_gaussian_projects_like_its_center():
    views, centers, matrices = cameras((0.0, 70.0, 200.0))
    means, scales, quaternions, opacities, _ = random_cloud(5, torch.float64)
    projected = project_gaussians(means, 1e-6 * scales, quaternions, opacities, centers, matrices, SIZE, SIZE)
    expected = project_points(means.float(), views)
    torch.testing.assert_close(projected.means.float(), expected[..., :2], atol=2e-3, rtol=0)
    torch.testing.assert_close(projected.depths.float(), expected[..., 2], atol=1e-4, rtol=0)
    only_low_pass = torch.tensor([1 / LOW_PASS, 0, 1 / LOW_PASS], dtype=torch.float64).expand_as(projected.conics)
    torch.testing.assert_close(projected.conics, only_low_pass, atol=1e-3, rtol=1e-3)


def test_a_central_ball_has_its_projected_variance():
    _, centers, matrices = cameras()
    sigma = 0.1
    projected = project_gaussians(
        torch.zeros(1, 3, dtype=torch.float64),
        torch.full((1, 3), sigma, dtype=torch.float64),
        torch.tensor([[0.3, 0.1, -0.2, 0.5]], dtype=torch.float64),
        torch.tensor([0.9], dtype=torch.float64),
        centers,
        matrices,
        SIZE,
        SIZE,
    )
    pixels_per_unit = 0.5 * SIZE / math.tan(math.radians(10)) / 3.8
    expected = 1 / ((sigma * pixels_per_unit) ** 2 + LOW_PASS)
    assert projected.conics[0, 0].tolist() == pytest.approx([expected, 0, expected], abs=1e-5)


def test_rotation_turns_the_long_axis():
    quarter_about_z = torch.tensor([[math.cos(math.pi / 4), 0.0, 0.0, math.sin(math.pi / 4)]], dtype=torch.float64)
    rotation = rotation_matrices(2 * quarter_about_z)[0]
    expected = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(rotation, expected)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m, s, o: (m + torch.tensor([8.0, 0, 0]), s, o), "behind the camera"),
        (lambda m, s, o: (m + torch.tensor([0.0, 50, 0]), s, o), "outside the frame"),
        (lambda m, s, o: (m, s, 0 * o + 0.001), "too transparent"),
    ],
)
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_invisible_gaussians_add_nothing_and_stay_finite(change, why, backend):
    _, centers, matrices = cameras(dtype=torch.float32)
    means, scales, quaternions, opacities, colors = random_cloud(20)
    means, scales, opacities = change(means, scales, opacities)
    leaves = [t.requires_grad_() for t in (means, scales, quaternions, opacities, colors)]
    image, covered = render(leaves, centers, matrices, backend=backend)
    assert covered.abs().max() == 0, why
    (image.sum() + covered.sum()).backward()
    assert all(t.grad is None or bool(torch.isfinite(t.grad).all()) for t in leaves)


def test_a_flat_gaussian_edge_on_stays_finite():
    _, centers, matrices = cameras(dtype=torch.float32)
    cloud = [
        torch.zeros(1, 3),
        torch.tensor([[0.2, 0.2, 1e-12]]),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.tensor([0.9]),
        torch.ones(1, 3),
    ]
    leaves = [t.requires_grad_() for t in cloud]
    image, _ = render(leaves, centers, matrices, backend="numba")
    image.sum().backward()
    assert torch.isfinite(image).all()
    assert all(torch.isfinite(t.grad).all() for t in leaves)


def test_a_gaussian_is_cut_at_the_frame():
    projected = on_screen([(0.0, 8.5)], 4.0, [1.0])
    image, _ = blend(
        projected, torch.tensor([0.9], dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64), 16, 16
    )
    assert image[0, 8, 0, 0].item() == pytest.approx(0.9 * math.exp(-0.5 * 0.25 / 4))


def test_reference_gradients_pass_gradcheck():
    _, centers, matrices = cameras((20.0,), size=6)
    cloud = random_cloud(3, torch.float64)
    cloud[1] = cloud[1] + 0.1
    cloud[3] = 0.3 + 0.5 * cloud[3]
    leaves = tuple(t.clone().requires_grad_() for t in cloud)
    assert torch.autograd.gradcheck(lambda *c: render(c, centers, matrices, 6), leaves, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_numba_agrees_with_the_reference(threads):
    _, centers, matrices = cameras((0.0, 130.0), torch.float32, 45)
    results = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for backend in ("reference", "numba"):
            leaves = [t.requires_grad_() for t in random_cloud(300)]
            image, covered = render(leaves, centers, matrices, 45, backend)
            weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
            ((image * weights).sum() + (covered * weights[..., :1]).sum()).backward()
            results.append([image.detach(), covered.detach(), *(t.grad for t in leaves)])
    finally:
        torch.set_num_threads(before)
    for ours, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-4 * float(expected.abs().max()), rtol=1e-4)


def test_gradients_do_not_depend_on_the_threads():
    _, centers, matrices = cameras((0.0,), torch.float32, 64)
    before, grads = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            leaves = [t.requires_grad_() for t in random_cloud(500)]
            image, covered = render(leaves, centers, matrices, 64, "numba")
            (image.square().sum() + covered.sum()).backward()
            grads.append([t.grad for t in leaves])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for others in grads[1:] for a, b in zip(others, grads[0], strict=True))
