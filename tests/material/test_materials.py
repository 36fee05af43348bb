import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.material.base import Shading
from zero123s.material.diffuse import DiffuseMaterial
from zero123s.material.neural_radiance import NeuralRadianceMaterial
from zero123s.material.plain import HybridRGBLatentMaterial, LatentAdapterMaterial, NoMaterial
from zero123s.ops.networks import DirectionEncodingConfig

X = torch.zeros(1, 3)
UP = torch.tensor([[0.0, 0, 1]])
LIGHT = torch.tensor([[0.0, 0, 5]])
FEATURES = torch.tensor([[0.0, 2.0, -2.0]])
ALBEDO = torch.sigmoid(FEATURES)


def build(**changes) -> DiffuseMaterial:
    return DiffuseMaterial(DiffuseMaterial.Config(**changes), 3)


@pytest.mark.parametrize(
    ("shading", "normal", "expected"),
    [
        (Shading("albedo"), None, ALBEDO),
        (Shading("diffuse", 0.3), UP, ALBEDO),
        (Shading("diffuse", 0.3), -UP, 0.3 * ALBEDO),
        (Shading("textureless", 0.3), -UP, torch.full((1, 3), 0.3)),
    ],
)
def test_lambert_by_hand(shading, normal, expected):
    torch.testing.assert_close(build()(FEATURES, X, UP, normal, LIGHT, shading), expected)


@pytest.mark.parametrize(
    ("mode", "normal", "expected"),
    [
        ("diffuse", -UP, ALBEDO * torch.tensor([0.1, 0.2, 0.3])),
        ("diffuse", UP, ALBEDO * torch.tensor([0.5, 0.7, 1.0])),  # blue is 0.3 + 0.9
        ("textureless", UP, torch.tensor([[0.5, 0.7, 1.0]])),
    ],
)
def test_own_lights_have_colours(mode, normal, expected):
    material = build(ambient_light_color=[0.1, 0.2, 0.3], diffuse_light_color=[0.4, 0.5, 0.9])
    torch.testing.assert_close(material(FEATURES, X, UP, normal, LIGHT, Shading(mode, None)), expected)


def test_soft_shading_draws_the_ambient_share():
    overrides = {"ambient_only_steps": 0, "diffuse_prob": 1.0}
    soft, hard = build(soft_shading=True, **overrides), build(**overrides)
    generator = torch.Generator().manual_seed(0)
    drawn = [soft.draw_shading(0, None, generator).ambient_ratio for _ in range(200)]
    assert min(drawn) < 0.1
    assert max(drawn) > 0.9
    assert soft.draw_shading(0, 0.6, generator).ambient_ratio == 0.6, "a given ratio comes first, as in threestudio"
    assert hard.draw_shading(0, None, generator).ambient_ratio is None


def test_a_light_has_three_colours():
    with pytest.raises(ConfigError, match=r"material\.diffuse_light_color: expected red, green and blue"):
        build(diffuse_light_color=[1.0])


def test_light_needs_normals():
    assert build().needs(Shading("albedo")) == {"features"}
    assert build().needs(Shading("diffuse")) == {"features", "normal"}
    with pytest.raises(ValueError, match="needs normals"):
        build()(FEATURES, X, UP, None, LIGHT, Shading("diffuse"))


def test_lights_begin_at_their_step_by_probability():
    material = build(ambient_only_steps=10, diffuse_prob=0.75, textureless_prob=0.5)
    generator = torch.Generator().manual_seed(0)
    assert material.draw_shading(9, 0.5, generator).mode == "albedo"
    modes = [material.draw_shading(10, 0.5, generator).mode for _ in range(4000)]
    shares = [modes.count(m) / len(modes) for m in ("albedo", "textureless", "diffuse")]
    assert shares == pytest.approx([0.25, 0.375, 0.375], abs=0.03)


def test_no_material_shows_its_features():
    out = NoMaterial(NoMaterial.Config(), 3)(FEATURES, X, UP, None, None, Shading())
    torch.testing.assert_close(out, ALBEDO)


def radiance(seed: int = 0, **changes) -> NeuralRadianceMaterial:
    torch.manual_seed(seed)
    return NeuralRadianceMaterial(NeuralRadianceMaterial.Config(**changes), 3)


def test_radiance_depends_on_direction_not_on_light():
    material = radiance()
    here = material(FEATURES, X, UP, None, None, Shading())
    assert ((here > 0) & (here < 1)).all()
    assert not torch.equal(here, material(FEATURES, X, -UP, None, None, Shading()))
    assert not torch.equal(here, material(FEATURES + 1, X, UP, None, None, Shading()))
    assert torch.equal(here, material(FEATURES, X, UP, UP, LIGHT, Shading("diffuse", 0.2)))
    assert material.needs(Shading("diffuse", 0.2)) == {"features"}


def test_radiance_learns_a_highlight():
    material = radiance(seed=1)  # 16 units without biases: some starts, such as 0, lose a channel to dead units
    dirs = torch.nn.functional.normalize(torch.randn(256, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    target = (0.1 + 0.8 * dirs[:, 2:].clamp_min(0).square()).expand(-1, 3)
    features = torch.zeros(256, 3)
    optimizer = torch.optim.Adam(material.parameters(), lr=0.02)
    for _ in range(100):
        loss = (material(features, features, dirs, None, None, Shading()) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 2e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_feature_dims": 8}, "geometry delivers 3 features"),
        ({"dir_encoding_config": DirectionEncodingConfig(degree=7)}, "degree"),
        ({"dir_encoding_config": DirectionEncodingConfig(otype="Frequency")}, "SphericalHarmonics"),
        ({"color_activation": "sigmoit"}, "Did you mean 'sigmoid'"),
    ],
)
def test_wrong_settings_are_reported(changes, message):
    with pytest.raises(ConfigError, match=message):
        radiance(**changes)


def test_hybrid_colours_keep_their_latents_as_they_are():
    features = torch.tensor([[0.0, 0.0, 0.0, 7.0]])
    cfg = HybridRGBLatentMaterial.Config(n_output_dims=4)
    out = HybridRGBLatentMaterial(cfg, 4)(features, features[:, :3], features[:, :3], None, None, Shading())
    assert out.tolist() == [[0.5, 0.5, 0.5, 7.0]]


def test_adapter_maps_latents_to_colours():
    features = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]])
    material = LatentAdapterMaterial(LatentAdapterMaterial.Config(), 4)
    out = material(features, features[:, :3], features[:, :3], None, None, Shading())
    torch.testing.assert_close(out, torch.tensor([[0.649, 0.6035, 0.604], [0.0, 0.0, 0.0]]))
    assert material.adapter.requires_grad


def test_too_few_features_for_latents_are_reported():
    with pytest.raises(ConfigError, match="n_feature_dims=4"):
        NoMaterial(NoMaterial.Config(n_output_dims=4), 3)
