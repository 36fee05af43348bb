import math

import pytest
import torch

from zero123s.background.solid import SolidColorBackground
from zero123s.errors import ConfigError
from zero123s.geometry.encoding import EncodingConfig
from zero123s.geometry.implicit_sdf import ImplicitSDF
from zero123s.losses import TERMS, View
from zero123s.material.plain import NoMaterial
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.ops.networks import NetworkConfig
from zero123s.renderer.neus_volume import NeusVolumeRenderer, volsdf_density
from zero123s.structures import FieldOutput
from zero123s.system.field import GeometryMaterialField

WHITE = SolidColorBackground(SolidColorBackground.Config())


class Plane:
    """The half space x < 0, seen along -x: a surface that every ray meets head on."""

    bound = 1.0

    def surface_level(self, x):
        return -x[:, 0]

    def density(self, x):
        raise AssertionError("NeuS needs distances, not densities")

    def gaussians(self, centers, needs, light_positions):
        return None

    def query(self, x, dirs, needs, light_positions=None):
        assert {"rgb", "sdf"} <= needs
        gradient = torch.tensor([1.0, 0, 0]).expand_as(x)
        return FieldOutput(x[:, 0], torch.zeros_like(x), gradient, sdf=x[:, 0], sdf_grad=gradient)


def build(**changes) -> NeusVolumeRenderer:
    return NeusVolumeRenderer(NeusVolumeRenderer.Config(**changes), bound=1.0)


def parallel_rays(angle_deg: float = 0.0):
    angle = math.radians(angle_deg)
    rays = generate_rays(orbit_cameras(0.0, 0.0, height=1, width=1))
    d = torch.tensor([-math.cos(angle), math.sin(angle), 0.0])
    return type(rays)((-0.9 * d).expand_as(rays.rays_o), d.expand_as(rays.rays_d), rays.light_positions)


@pytest.mark.parametrize("angle_deg", [0.0, 50.0])
def test_transmittance_past_a_plane_is_logistic(angle_deg):
    renderer = build(grid_prune=False, num_samples_per_ray=4096, learned_variance_init=0.3).eval()
    out = renderer(parallel_rays(angle_deg), Plane(), WHITE)
    # Transmittance of NeuS telescopes to S(behind the last step) / S(before the first); the ray ends at the box.
    inv_std = math.exp(3.0)
    cosine = math.cos(math.radians(angle_deg))
    last, first = -1.0, 1.0  # the box cuts both distances off where the straight ray leaves it
    if angle_deg:
        last, first = (
            -0.9 * cosine - (1 - 0.9 * math.sin(math.radians(angle_deg))) / math.tan(math.radians(angle_deg)),
            1.0,
        )
        last = max(last, -1.0)
    expected = 1 - torch.sigmoid(torch.tensor(inv_std * last)) / torch.sigmoid(torch.tensor(inv_std * first))
    assert out.opacity.item() == pytest.approx(expected.item(), abs=2e-3)
    assert out.depth.item() == pytest.approx(0.9, abs=0.05)


def test_alpha_is_the_papers_formula():
    renderer = build(learned_variance_init=0.2)
    sdf, dt, cosine = torch.tensor([0.1, 0.0, -0.05]), 0.1, -0.8
    s = math.exp(2.0)
    before, behind = torch.sigmoid(s * (sdf + 0.04)), torch.sigmoid(s * (sdf - 0.04))
    torch.testing.assert_close(renderer.alpha(sdf, cosine, dt), (before - behind) / before, atol=2e-5, rtol=0)


def test_annealing_blends_slopes_and_stays_negative():
    renderer = build(cos_anneal_end_steps=100)
    normal = torch.tensor([[1.0, 0, 0]]).expand(3, 3)
    dirs = torch.tensor([[-1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]])  # entering, grazing, leaving
    for step, expected in ((0, [-1, -0.5, 0]), (50, [-1, -0.25, 0]), (100, [-1, 0, 0]), (500, [-1, 0, 0])):
        renderer.on_step(step)
        torch.testing.assert_close(renderer.annealed_cosine(normal, dirs), torch.tensor(expected, dtype=torch.float32))


def test_volsdf_is_the_scaled_laplace_cdf():
    sdf = torch.tensor([-0.2, 0.0, 0.2])
    b = 0.1
    expected = torch.tensor([1 - 0.5 * math.exp(-2), 0.5, 0.5 * math.exp(-2)]) / b
    torch.testing.assert_close(volsdf_density(sdf, torch.tensor(1 / b)), expected)


def test_pruning_loses_nothing_of_the_surface():
    full = build(grid_prune=False).eval()(parallel_rays(20.0), Plane(), WHITE)
    pruned = build(learned_variance_init=0.3)
    pruned.update(Plane(), 0, torch.Generator().manual_seed(0))
    out = pruned.eval()(parallel_rays(20.0), Plane(), WHITE)
    assert out.n_samples < full.n_samples
    assert out.opacity.item() == pytest.approx(full.opacity.item(), abs=0.02)


def test_a_field_without_distance_is_reported():
    class Fog(Plane):
        def query(self, x, dirs, needs, light_positions=None):
            return FieldOutput(x[:, 0], torch.zeros_like(x))

    with pytest.raises(ConfigError, match="implicit-sdf"):
        build(grid_prune=False)(parallel_rays(), Fog(), WHITE)


@pytest.mark.parametrize("use_volsdf", [False, True])
def test_training_recovers_a_ball(use_volsdf):
    """Silhouettes and colours of a red ball of radius 0.45 turn a sphere of radius 0.6 into it."""
    torch.manual_seed(0)
    encoding = EncodingConfig(n_levels=4, log2_hashmap_size=12, base_resolution=4)
    geometry = ImplicitSDF(
        ImplicitSDF.Config(
            sdf_bias_params=0.6,
            normal_type="finite_difference",
            finite_difference_normal_eps=0.02,
            pos_encoding_config=encoding,
            mlp_network_config=NetworkConfig(n_neurons=16, n_hidden_layers=1),
        )
    )
    field = GeometryMaterialField(geometry, NoMaterial(NoMaterial.Config(), 3))
    renderer = build(num_samples_per_ray=96, grid_resolution=16, use_volsdf=use_volsdf, cos_anneal_end_steps=20)
    optimizer = torch.optim.Adam([*geometry.parameters(), *renderer.parameters()], lr=0.01)
    generator = torch.Generator().manual_seed(0)
    first_variance = renderer.variance.item()
    for step in range(80):
        renderer.on_step(step)
        renderer.update(field, step, torch.Generator().manual_seed(step))
        views = orbit_cameras(60 * torch.rand(3, generator=generator), 360 * torch.rand(3, generator=generator), 3.8)
        rays = generate_rays(views.resized(20, 20))
        b = (rays.rays_o * rays.rays_d).sum(-1)
        mask = (b**2 - (rays.rays_o.square().sum(-1) - 0.45**2) > 0).float()[..., None]
        target = mask * torch.tensor([1.0, 0, 0]) + (1 - mask)
        out = renderer(rays, field, WHITE, frozenset({"samples", "sdf"}), generator)
        eikonal = TERMS["eikonal"].fn(View(out))
        loss = 3 * (out.opacity - mask).square().mean() + (out.comp_rgb - target).square().mean() + 0.1 * eikonal
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (out.opacity - mask).abs().mean().item() < 0.06
    assert renderer.variance.item() != first_variance
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=-1)
    radii = torch.linspace(0.2, 0.9, 200)
    sdf = -geometry.surface_level((radii[:, None, None] * directions).reshape(-1, 3)).reshape(200, 200)
    surface = radii[(sdf < 0).sum(0).clamp(max=199)]
    assert surface.median().item() == pytest.approx(0.45, abs=0.03)
    slope = geometry(0.45 * directions, frozenset({"sdf"})).sdf_grad.norm(dim=-1)
    assert slope.median().item() == pytest.approx(1.0, abs=0.2)
