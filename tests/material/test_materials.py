import pytest
import torch

from zero123s.material.base import Shading
from zero123s.material.diffuse import DiffuseMaterial, NoMaterial

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


def test_light_needs_normals():
    assert build().needs(Shading("albedo")) == {"features"}
    assert build().needs(Shading("diffuse")) == {"features", "normal"}
    with pytest.raises(ValueError, match="needs normals"):
        build()(FEATURES, X, UP, None, LIGHT, Shading("diffuse"))


def test_no_light_until_its_step_and_then_by_its_shares():
    material = build(ambient_only_steps=10, diffuse_prob=0.75, textureless_prob=0.5)
    generator = torch.Generator().manual_seed(0)
    assert material.draw_shading(9, 0.5, generator).mode == "albedo"
    modes = [material.draw_shading(10, 0.5, generator).mode for _ in range(4000)]
    shares = [modes.count(m) / len(modes) for m in ("albedo", "textureless", "diffuse")]
    assert shares == pytest.approx([0.25, 0.375, 0.375], abs=0.03)


def test_no_material_shows_its_features():
    out = NoMaterial(NoMaterial.Config(), 3)(FEATURES, X, UP, None, None, Shading())
    torch.testing.assert_close(out, ALBEDO)
