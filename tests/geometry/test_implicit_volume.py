import math
from dataclasses import replace

import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.geometry.encoding import EncodingConfig, HashEncoding
from zero123s.geometry.implicit_volume import ImplicitVolume
from zero123s.geometry.scalar_field import NORMAL_TYPES
from zero123s.ops.networks import NetworkConfig

SMALL = ImplicitVolume.Config(
    radius=2.0,
    normal_type="analytic",
    pos_encoding_config=EncodingConfig(n_levels=4, log2_hashmap_size=10, base_resolution=4),
    mlp_network_config=NetworkConfig(n_neurons=16, n_hidden_layers=1),
)


def build(**changes) -> ImplicitVolume:
    torch.manual_seed(0)
    return ImplicitVolume(replace(SMALL, **changes))


def random_points(n: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) - 0.5


def test_initial_density_is_the_magic3d_cone_under_softplus():
    x = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]])
    expected = torch.tensor([10.0, math.log(2), math.log1p(math.exp(-10))])
    torch.testing.assert_close(build().density(x), expected, atol=1e-3, rtol=1e-2)


def test_other_biases():
    x = torch.tensor([[0.3, 0.0, 0.4]])
    dreamfusion = build(
        density_bias="blob_dreamfusion", density_blob_scale=5.0, density_blob_std=0.2, density_activation="exp"
    )
    assert float(dreamfusion.density(x).log()) == pytest.approx(5 * math.exp(-0.5 * 0.25 / 0.04), abs=1e-3)
    assert float(build(density_bias=-1.0, density_activation="none").density(x)) == pytest.approx(-1.0, abs=1e-3)


@pytest.mark.parametrize("normal_type", [t for t in NORMAL_TYPES if t != "pred"])
def test_normals_of_the_blob_point_outwards(normal_type):
    x = random_points()
    normal = build(normal_type=normal_type)(x, frozenset({"normal"})).normal
    outwards = torch.nn.functional.normalize(x, dim=-1)
    assert (normal * outwards).sum(-1).min() > 0.97


def test_analytic_normals_match_finite_differences_and_train():
    geometry = build()
    with torch.no_grad():
        geometry.encoding.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    x = random_points()
    out = geometry(x, frozenset({"features", "normal", "normal_perturbed"}), torch.Generator().manual_seed(0))
    central = build(normal_type="finite_difference_laplacian", finite_difference_normal_eps=1e-3)
    central.load_state_dict(geometry.state_dict())
    agreement = (out.normal * central(x, frozenset({"normal"})).normal).sum(-1)
    assert agreement.median() > 0.999
    (out.normal - out.normal_perturbed).abs().mean().backward()
    assert torch.isfinite(geometry.encoding.table.grad).all()
    assert geometry.encoding.table.grad.abs().sum() > 0


def test_a_smoothness_subsample_has_the_same_mean():
    geometry = build()
    with torch.no_grad():
        geometry.encoding.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    part = build(perturbed_share=0.25)
    part.load_state_dict(geometry.state_dict())
    x, needs = random_points(20000), frozenset({"normal", "normal_perturbed"})
    # Not seed 0: the points were drawn with it, and steps that follow the points are not random.
    whole = geometry(x, needs, torch.Generator().manual_seed(9))
    some = [part(x, needs, torch.Generator().manual_seed(seed)) for seed in range(1, 9)]
    assert whole.perturbed_at is None
    assert {int(out.perturbed_at[0]) for out in some} == {0, 1, 2, 3}
    assert all(torch.equal(out.perturbed_at.diff(), torch.full((4999,), 4)) for out in some)
    mean = (whole.normal - whole.normal_perturbed).abs().mean().item()
    means = torch.stack([(out.normal[out.perturbed_at] - out.normal_perturbed).abs().mean() for out in some])
    assert means.mean().item() == pytest.approx(mean, rel=0.02)
    for n in (0, 1, 3):
        out = part(x[:n], needs, torch.Generator().manual_seed(3))
        assert len(out.normal_perturbed) == len(out.perturbed_at) <= n


def test_evaluation_without_gradients_still_has_normals():
    geometry = build()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = geometry(random_points(), frozenset({"normal", "features"}))
        assert out.normal.norm(dim=-1).min() > 0.99
        assert not out.sigma.requires_grad
        assert not out.features.requires_grad


@pytest.mark.parametrize("normal_type", NORMAL_TYPES)
def test_no_points(normal_type):
    geometry = build(normal_type=normal_type)
    out = geometry(torch.zeros(0, 3), frozenset({"features", "normal", "normal_perturbed"}), torch.Generator())
    assert (out.sigma.shape, out.features.shape, out.normal.shape) == ((0,), (0, 3), (0, 3))
    (out.sigma.sum() + out.normal.sum() + out.features.sum()).backward()


def test_progressive_levels_come_in_one_by_one():
    cfg = EncodingConfig("ProgressiveBandHashGrid", 4, 2, 10, 4, start_level=1, start_step=10, update_steps=5)
    encoding = HashEncoding(cfg)
    x = random_points(8) + 0.5
    on = []
    for step in (0, 14, 15, 20, 1000):
        encoding.on_step(step)
        on.append(int((encoding(x).abs().sum(0) > 0).sum()) // 2)
    assert on == [1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normal_type": "analitic"}, "normal_type"),
        ({"density_bias": "blob"}, "density_bias"),
        ({"pos_encoding_config": EncodingConfig(otype="Hash")}, "otype"),
        ({"mlp_network_config": NetworkConfig(otype="FusedMLP")}, "otype"),
        ({"density_activation": "softpluss"}, r"Did you mean 'softplus'"),
    ],
)
def test_wrong_settings_are_reported(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)
