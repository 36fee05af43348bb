import math

import pytest
import torch

from zero123s.background.solid import SolidColorBackground
from zero123s.config.parse import parse
from zero123s.errors import ConfigError
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.renderer.nerf_volume import NerfVolumeRenderer
from zero123s.structures import FieldOutput, RadianceField


class Ball:
    """A homogeneous ball of radius 0.5, red, whose density can be trained."""

    bound = 1.0

    def __init__(self, sigma: float) -> None:
        self.sigma = torch.tensor(sigma, requires_grad=True)

    def density(self, x):
        return self.sigma * (x.norm(dim=-1) < 0.5)

    surface_level = density

    def query(self, x, dirs, needs, light_positions=None):
        rgb = torch.tensor([1.0, 0, 0]).expand_as(x)
        normal = torch.nn.functional.normalize(x, dim=-1) if "normal" in needs else None
        return FieldOutput(self.density(x), rgb, normal)

    def gaussians(self, centers, needs, light_positions):
        return None


def build(**changes) -> NerfVolumeRenderer:
    return NerfVolumeRenderer(NerfVolumeRenderer.Config(**changes), bound=1.0)


def views(size: int = 17):
    return generate_rays(orbit_cameras(10.0, torch.tensor([0.0, 120.0]), height=size, width=size))


WHITE = SolidColorBackground(SolidColorBackground.Config())


def test_a_ball_has_its_closed_form_opacity():
    field = Ball(2.0)
    renderer = build(grid_prune=False, num_samples_per_ray=2048).eval()
    out = renderer(views(), field, WHITE, frozenset({"normal"}))
    expected = 1 - math.exp(-2.0)  # the central ray crosses one diameter
    assert float(out.opacity[0, 8, 8]) == pytest.approx(expected, abs=2e-3)
    torch.testing.assert_close(
        out.comp_rgb[0, 8, 8], torch.tensor([1.0, 1 - expected, 1 - expected]), atol=2e-3, rtol=0
    )
    assert out.opacity[0, 0, 0] == 0
    torch.testing.assert_close(out.comp_rgb[0, 0, 0], torch.ones(3))
    assert isinstance(field, RadianceField)


def test_pruning_and_chunks_change_nothing_visible():
    field = Ball(30.0)
    full = build(grid_prune=False).eval()(views(), field, WHITE)
    pruned = build(eval_chunk_size=50)
    for step in range(0, 256, 16):  # each refresh evaluates one random point of a cell
        pruned.update(field, step, torch.Generator().manual_seed(step))
    out = pruned.eval()(views(), field, WHITE)
    assert out.n_samples < full.n_samples / 5
    # Cells that the ball only grazes are found by chance; rays that go deeper, and those that miss, must agree.
    deep, miss = full.opacity > 0.9999, full.opacity == 0
    assert deep.sum() > 100
    torch.testing.assert_close(out.opacity[deep], full.opacity[deep], atol=1e-3, rtol=0)
    assert out.opacity[miss].max() == 0


def test_training_passes_give_samples_and_gradients():
    field = Ball(3.0)
    renderer = build()
    renderer.update(field, 0, torch.Generator().manual_seed(0))
    out = renderer(views(), field, WHITE, frozenset({"samples", "normal"}), torch.Generator().manual_seed(1))
    assert len(out.weights) == len(out.normal) == len(out.dirs) == out.n_samples > 0
    summed = torch.zeros(2 * 17 * 17).index_add(0, out.ray_indices, out.weights)
    torch.testing.assert_close(summed.reshape(out.opacity.shape), out.opacity)
    out.opacity.mean().backward()
    assert float(field.sigma.grad) > 0


def test_same_generator_same_image():
    field, renderer = Ball(3.0), build()
    renderer.update(field, 0, torch.Generator().manual_seed(0))
    a, b, c = (renderer(views(), field, WHITE, generator=torch.Generator().manual_seed(s)).opacity for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_nothing_to_see_is_background_and_still_trains():
    field, renderer = Ball(0.0), build()
    renderer.update(field, 0, torch.Generator().manual_seed(0))
    out = renderer(views(), field, WHITE, frozenset({"samples", "normal"}), torch.Generator())
    assert out.n_samples == 0
    assert torch.equal(out.comp_rgb, torch.ones_like(out.comp_rgb))
    assert out.comp_normal.abs().max() == 0
    out.comp_rgb.sum().backward()


def test_unknown_estimator_is_reported():
    with pytest.raises(ConfigError, match="proposal"):
        build(estimator="proposal")


def test_emptied_space_is_pruned_at_the_decay():
    occupied = []
    for decay in (0.95, 0.3):
        renderer = build(grid_ema_decay=decay, grid_resolution=8)
        renderer.update(Ball(30.0), 0, torch.Generator().manual_seed(0))
        for step in (16, 32, 48):
            renderer.update(Ball(0.0), step, torch.Generator().manual_seed(step))
        occupied.append(int((renderer.grid.occs > 0.01).sum()))
    assert occupied[0] > occupied[1] == 0


@pytest.mark.parametrize(
    "overrides", [{"grid_ema_decay": 1.0}, {"num_samples_per_ray": 0}, {"eval_chunk_size": 0}, {"early_stop": 2.0}]
)
def test_settings_out_of_range_are_reported(overrides):
    with pytest.raises(ConfigError, match=next(iter(overrides))):
        parse(NerfVolumeRenderer.Config, overrides, "system.renderer")


def test_rays_end_at_the_far_plane_given():
    counts = []
    for stop in (1e-4, 0.1):
        renderer = build(early_stop=stop)
        renderer.update(Ball(30.0), 0, torch.Generator().manual_seed(0))
        counts.append(renderer(views(), Ball(30.0), WHITE, generator=torch.Generator()).n_samples)
    assert 0 < counts[1] < 0.7 * counts[0]
