"""The rasterised surface of a distance field: closed forms of a ball, when it is looked for anew, and what it learns."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from zero123s.background.solid import SolidColorBackground
from zero123s.errors import ConfigError
from zero123s.geometry.encoding import EncodingConfig
from zero123s.geometry.implicit_sdf import ImplicitSDF
from zero123s.losses import TERMS, View
from zero123s.material.plain import NoMaterial
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.ops.networks import NetworkConfig
from zero123s.renderer.mesh_rasterizer import MeshRasterizer
from zero123s.structures import FieldOutput, ReferenceView
from zero123s.system.field import GeometryMaterialField

WHITE = SolidColorBackground(SolidColorBackground.Config())
CAMERAS = orbit_cameras(torch.tensor([10.0, 50.0]), torch.tensor([30.0, 200.0]), height=24, width=24)
EVERYTHING = frozenset({"normal", "samples", "normal_perturbed", "sdf"})


class Ball:
    """A black ball with a radius that can be trained; counts the points at which it is looked at."""

    bound = 0.7

    def __init__(self, radius: float = 0.4, steepness: float = 1.0):
        self.radius = torch.tensor(radius, requires_grad=True)
        self.steepness = steepness
        self.points = 0

    def surface_level(self, x):
        self.points += len(x)
        return self.steepness * (self.radius - x.norm(dim=-1))

    def density(self, x):
        raise AssertionError("a rasteriser needs distances, not densities")

    def gaussians(self, centers, needs, light_positions):
        return None

    def query(self, x, dirs, needs, light_positions=None):
        assert light_positions is not None
        assert light_positions.shape == x.shape
        normal = F.normalize(x, dim=-1)
        return FieldOutput(self.surface_level(x), torch.zeros_like(x), normal, normal + 0.0, sdf_grad=2 * normal)


def build(bound: float = 0.7, **changes) -> MeshRasterizer:
    return MeshRasterizer(MeshRasterizer.Config(**{"grid_resolution": 32, **changes}), bound)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball_area(radius: float, size: int) -> float:
    """Pixels that a ball covers at distance 3.8 under 20 degrees."""
    focal = size / 2 / math.tan(math.radians(10))
    return math.pi * (focal * radius) ** 2 / (3.8**2 - radius**2)


def test_a_ball_has_its_depth_normals_and_area():
    out = build(grid_resolution=64).eval()(generate_rays(CAMERAS), Ball(), WHITE, frozenset({"normal"}))
    rays = generate_rays(CAMERAS)
    b = (rays.rays_o * rays.rays_d).sum(-1)
    under = b**2 - 3.8**2 + 0.4**2
    inside = under > 0.03
    assert inside.sum() > 200
    torch.testing.assert_close(out.depth[..., 0][inside], (-b - under.clamp_min(0).sqrt())[inside], atol=2e-3, rtol=0)
    at = rays.rays_o + rays.rays_d * out.depth
    torch.testing.assert_close((2 * out.comp_normal - 1)[inside], F.normalize(at, dim=-1)[inside], atol=1e-3, rtol=0)
    torch.testing.assert_close(out.opacity.sum((1, 2, 3)), torch.full((2,), ball_area(0.4, 24)), rtol=0.02, atol=0)
    torch.testing.assert_close(out.comp_rgb, (1 - out.opacity).expand(-1, -1, -1, 3))


def test_opacity_gradient_is_the_covered_area():
    field = Ball()
    out = build(grid_resolution=48)(generate_rays(CAMERAS), field, WHITE, frozenset(), seeded())
    gradient = torch.autograd.grad(out.opacity.sum() / 2, field.radius)[0]
    expected = (ball_area(0.41, 24) - ball_area(0.39, 24)) / 0.02
    assert gradient.item() == pytest.approx(expected, rel=0.05)


def test_depth_and_colours_tell_it_too():
    field = Ball()
    out = build()(generate_rays(CAMERAS), field, WHITE, frozenset(), seeded())
    middle = out.depth[:, 10:14, 10:14].mean()
    assert torch.autograd.grad(middle, field.radius, retain_graph=True)[0].item() == pytest.approx(-1, abs=0.1)
    assert torch.autograd.grad(out.comp_rgb.mean(), field.radius)[0] < 0, "more black"


def test_mixed_precision_moves_no_pixel():
    """Networks may answer in half precision; where the surface lies on the screen stays exact."""
    geometry, renderer = small_sphere(0.4), build().eval()
    field = GeometryMaterialField(geometry, NoMaterial(NoMaterial.Config(), geometry.n_features))
    whole = renderer(generate_rays(CAMERAS), field, WHITE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = renderer(generate_rays(CAMERAS), field, WHITE)
    torch.testing.assert_close(mixed.opacity, whole.opacity, atol=1e-3, rtol=0)
    torch.testing.assert_close(mixed.depth, whole.depth, atol=1e-3, rtol=0)


def test_samples_serve_the_losses_of_three_dimensions():
    field, renderer = Ball(), build()
    out = renderer(generate_rays(CAMERAS), field, WHITE, EVERYTHING, seeded())
    assert TERMS["eikonal"].fn(View(out)).item() == pytest.approx(1, abs=1e-4)
    assert TERMS["3d_normal_smooth"].fn(View(out)).item() == 0
    assert TERMS["orient"].fn(View(out)).item() < 1e-3
    assert len(out.weights) > out.n_samples, "blended pixels hold a neighbour's sample besides their own"

    class Sparse(Ball):
        def query(self, x, dirs, needs, light_positions=None):
            found = super().query(x, dirs, needs, light_positions)
            at = torch.arange(1, len(x), 3)
            return replace(found, normal_perturbed=found.normal[at], perturbed_at=at)

    thinned = renderer(generate_rays(CAMERAS), Sparse(), WHITE, EVERYTHING, seeded())
    assert TERMS["3d_normal_smooth"].fn(View(thinned)).item() == 0, "each normal is compared with its own"
    with torch.no_grad():
        bare = renderer.eval()(generate_rays(CAMERAS), field, WHITE, EVERYTHING)
    assert (bare.weights, bare.sdf_grad) == (None, None)


def test_only_surroundings_of_the_surface_are_evaluated():
    field, renderer = Ball(), build(grid_resolution=64).eval()
    rays = generate_rays(CAMERAS)
    whole = renderer(rays, field, WHITE)
    everywhere, field.points = field.points, 0
    renderer.update(field, 16, seeded())
    field.points = 0
    near = renderer(rays, field, WHITE)
    assert torch.equal(near.comp_rgb, whole.comp_rgb)
    assert field.points < everywhere / 4
    field.points = 0
    renderer.update(field, 17, seeded())
    assert field.points == 0, "in between nothing is looked at"


@pytest.mark.parametrize("steepness", [1.0, 6.0])
def test_a_moved_surface_is_found_again(steepness):
    renderer = build().eval()
    renderer.update(Ball(0.2, steepness), 0, seeded())
    out = renderer(generate_rays(CAMERAS), Ball(0.5, steepness), WHITE)
    torch.testing.assert_close(out.opacity.sum((1, 2, 3)), torch.full((2,), ball_area(0.5, 24)), rtol=0.03, atol=0)


def test_the_surface_is_closed_at_the_cube():
    renderer = build().eval()
    renderer.update(Ball(0.9), 0, seeded())
    out = renderer(generate_rays(CAMERAS), Ball(0.9), WHITE)
    assert out.opacity[:, 12, 12].min() == 1
    assert not renderer.near.all()


def test_an_empty_field_is_reported_once(caplog):
    renderer, nothing = build(), Ball(-0.1)
    for _ in range(2):
        out = renderer(generate_rays(CAMERAS), nothing, WHITE, EVERYTHING, seeded())
    assert caplog.text.count("no surface inside its cube") == 1
    assert (out.comp_rgb == 1).all()
    assert (out.opacity == 0).all()
    losses = out.comp_rgb.mean() + out.opacity.mean() + TERMS["eikonal"].fn(View(out))
    assert losses.item() == 1
    assert torch.autograd.grad(losses, nothing.radius)[0] == 0


def test_a_grid_without_blocks_is_refused():
    with pytest.raises(ConfigError, match="multiple of 4, got 30"):
        build(grid_resolution=30)


def small_sphere(radius: float) -> ImplicitSDF:
    return ImplicitSDF(
        ImplicitSDF.Config(
            radius=0.7,
            sdf_bias_params=radius,
            normal_type="analytic",
            pos_encoding_config=EncodingConfig(n_levels=4, log2_hashmap_size=12, base_resolution=4),
            mlp_network_config=NetworkConfig(n_neurons=16, n_hidden_layers=1),
        )
    )


def test_a_small_sphere_grows_into_larger_silhouettes():
    """By the gradients at its outline alone: the only loss is the mask's."""
    torch.manual_seed(0)
    cameras = orbit_cameras(torch.tensor([0.0, 0.0, 60.0]), torch.tensor([0.0, 90.0, 45.0]), height=24, width=24)
    rays, target = generate_rays(cameras), Ball(0.45)
    mask = build(grid_resolution=48).eval()(rays, target, WHITE).opacity.detach()
    geometry, renderer = small_sphere(0.32), build(grid_resolution=24)
    field = GeometryMaterialField(geometry, NoMaterial(NoMaterial.Config(), geometry.n_features))
    optimizer = torch.optim.Adam(geometry.parameters(), lr=0.005)
    reference = ReferenceView(cameras, torch.zeros(3, 24, 24, 3), mask)
    history = []
    for step in range(40):
        renderer.update(field, step, seeded(step))
        out = renderer(rays, field, WHITE, frozenset(), seeded(step))
        loss = TERMS["mask"].fn(View(out, reference))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    with torch.no_grad():
        covered = renderer.eval()(rays, field, WHITE).opacity
    assert history[-1] < history[0] / 20
    shown, given = covered > 0.5, mask > 0.5
    assert (shown & given).sum() / (shown | given).sum() > 0.95
