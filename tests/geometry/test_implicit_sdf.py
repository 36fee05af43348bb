import math
from dataclasses import replace

import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.geometry.encoding import EncodingConfig
from zero123s.geometry.implicit_sdf import ImplicitSDF, ellipsoid_sdf
from zero123s.geometry.scalar_field import NORMAL_TYPES
from zero123s.ops.networks import NetworkConfig

SMALL = ImplicitSDF.Config(
    radius=1.0,
    pos_encoding_config=EncodingConfig(n_levels=4, log2_hashmap_size=10, base_resolution=4),
    mlp_network_config=NetworkConfig(n_neurons=16, n_hidden_layers=1),
)
AXES = (0.3, 0.5, 0.8)


def build(**changes) -> ImplicitSDF:
    torch.manual_seed(0)
    return ImplicitSDF(replace(SMALL, **changes))


def random_points(n: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def on_the_ellipsoid(n: int = 64) -> torch.Tensor:
    return torch.nn.functional.normalize(random_points(n), dim=-1) * torch.tensor(AXES)


@pytest.mark.parametrize("overrides", [{"shape_init": "sphere", "shape_init_params": 0.4}, {"sdf_bias_params": 0.4}])
def test_it_starts_as_an_exact_sphere(overrides):
    x = random_points()
    geometry = build(**overrides)
    exact = x.norm(dim=-1) - 0.4
    out = geometry(x, frozenset({"sdf"}))
    torch.testing.assert_close(out.sdf, exact, atol=1e-6, rtol=0)
    torch.testing.assert_close(geometry.surface_level(x), -exact, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.sigma, 20 * torch.sigmoid(-20 * exact), atol=1e-4, rtol=0)


def test_it_starts_as_an_exact_ellipsoid():
    x = on_the_ellipsoid()
    geometry = build(shape_init="ellipsoid", shape_init_params=list(AXES), normal_type="analytic")
    out = geometry(x, frozenset({"sdf", "normal"}))
    torch.testing.assert_close(out.sdf, torch.zeros(len(x)), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.sdf_grad.norm(dim=-1), torch.ones(len(x)), atol=1e-4, rtol=0)
    outward = torch.nn.functional.normalize(x / torch.tensor(AXES).square(), dim=-1)
    torch.testing.assert_close(out.normal, outward, atol=1e-4, rtol=0)


def test_an_ellipsoid_of_equal_axes_is_a_sphere():
    x = torch.cat([random_points(), torch.zeros(1, 3)]).requires_grad_()
    sdf = ellipsoid_sdf(x, (0.5, 0.5, 0.5))
    torch.testing.assert_close(sdf, x.norm(dim=-1) - 0.5, atol=1e-5, rtol=0)
    sdf.sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("normal_type", [t for t in NORMAL_TYPES if t != "pred"])
def test_gradients_are_those_of_the_sphere(normal_type):
    x = random_points()
    out = build(normal_type=normal_type, finite_difference_normal_eps=1e-3)(x, frozenset({"sdf", "normal"}))
    outward = torch.nn.functional.normalize(x, dim=-1)
    # Forward differences of |x| are off by eps / 2|x|, and float32 resolves 1e-7 / eps.
    torch.testing.assert_close(out.sdf_grad, outward, atol=1e-2, rtol=0)
    torch.testing.assert_close(out.normal, outward, atol=1e-2, rtol=0)


@pytest.mark.parametrize("normal_type", NORMAL_TYPES)
def test_eikonal_loss_trains_every_sdf_parameter(normal_type):
    geometry = build(normal_type=normal_type)
    with torch.no_grad():
        geometry.encoding.table.uniform_(-1, 1)
        geometry.sdf_network.layers[-1].weight.normal_(std=0.1)
    out = geometry(random_points(), frozenset({"sdf", "normal"}))
    (out.sdf_grad.norm(dim=-1) - 1).square().mean().backward()
    for parameter in (geometry.encoding.table, *geometry.sdf_network.parameters()):
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().sum() > 0


def test_sharpness_follows_its_schedule():
    geometry = build(sharpness=[0, 10.0, 100.0, 50])
    x = torch.tensor([[0.5, 0.0, 0.0]])
    for step, expected in ((0, 5.0), (50, 50.0)):  # half the sharpness on the surface
        geometry.on_step(step)
        assert geometry.density(x).item() == pytest.approx(expected, rel=1e-3)


def test_progressive_differences_follow_the_finest_active_level():
    encoding = EncodingConfig("ProgressiveBandHashGrid", 4, 2, 10, 4, 2.0, start_level=1, update_steps=10)
    geometry = build(pos_encoding_config=encoding, finite_difference_normal_eps="progressive")
    for step, cells in ((0, 4), (10, 8), (1000, 32)):
        geometry.encoding.on_step(step)
        assert geometry.progressive_eps() == pytest.approx(2.0 / cells)
    out = geometry(random_points(), frozenset({"normal"}))
    assert (out.normal.norm(dim=-1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape_init": "cube"}, "none of sphere, ellipsoid"),
        ({"shape_init": "ellipsoid", "shape_init_params": 0.5}, "expected 3 numbers"),
        ({"sdf_bias_params": -0.5}, "above 0"),
        ({"sdf_bias": [1, 2]}, "expected a number"),
        ({"sharpness": [0, 1.0, 0.0, 10]}, "sharpness"),
        ({"finite_difference_normal_eps": "progressive"}, "ProgressiveBandHashGrid"),
        ({"finite_difference_normal_eps": 0}, "length > 0"),
        ({"isosurface_threshold": "low"}, "neither a number nor auto"),
        ({"radius": 0.0}, "radius"),
    ],
)
def test_wrong_settings_are_reported(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_a_constant_bias_shifts_the_network():
    torch.testing.assert_close(
        build(sdf_bias=0.25).value_at(random_points()), torch.full((64,), 0.25), atol=1e-3, rtol=0
    )
    assert math.isclose(build(sdf_bias=0.25).sharpness, 20.0)
