import pytest
import torch
from torch.nn import functional as F

from zero123s.background.environment_map import NeuralEnvironmentMapBackground
from zero123s.background.solid import SolidColorBackground
from zero123s.background.textured import TexturedBackground
from zero123s.errors import ConfigError


def directions(batch: int = 2) -> torch.Tensor:
    return F.normalize(torch.randn(batch, 5, 7, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_only_a_learned_colour_is_a_parameter():
    learned = SolidColorBackground(SolidColorBackground.Config(color=[0.2, 0.4, 0.6], learned=True))
    learned(directions()).sum().backward()
    torch.testing.assert_close(learned.color.grad, torch.full((3,), 70.0))
    fixed = SolidColorBackground(SolidColorBackground.Config(color=[0.2, 0.4, 0.6]))
    assert not list(fixed.parameters())
    torch.testing.assert_close(fixed(directions())[0, 0, 0], torch.tensor([0.2, 0.4, 0.6]))


@pytest.mark.parametrize("cls", [SolidColorBackground, NeuralEnvironmentMapBackground])
def test_random_colours_are_drawn_per_view_in_training(cls):
    background = cls(cls.Config(random_aug=True, random_aug_prob=0.3))
    generator = torch.Generator().manual_seed(0)
    plain = background.eval()(directions())
    replaced = 0
    for _ in range(400):
        out = background.train()(directions(), generator)
        changed = not torch.equal(out, plain)
        replaced += changed
        if changed:
            assert (out == out[:, :1, :1]).all()
            assert not torch.equal(out[0], out[1])
    assert replaced / 400 == pytest.approx(0.3, abs=0.07)
    assert torch.equal(background.eval()(directions(), generator), plain)


def test_panorama_shows_texels_in_place_without_a_seam():
    background = TexturedBackground(TexturedBackground.Config(height=4, width=8, color_activation="none"))
    with torch.no_grad():
        background.texture.copy_(torch.randn(1, 3, 4, 8, generator=torch.Generator().manual_seed(0)))
    row, column = 1, 5
    polar, azimuth = (
        torch.tensor((row + 0.5) / 4 * torch.pi),
        torch.tensor((column + 0.5) / 8 * 2 * torch.pi - torch.pi),
    )
    d = torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()])
    torch.testing.assert_close(background(d.expand(1, 1, 1, 3))[0, 0, 0], background.texture[0, :, row, column])
    behind = torch.tensor([[-1.0, 1e-6, 0.0], [-1.0, -1e-6, 0.0]]).reshape(1, 1, 2, 3)
    left, right = background(behind)[0, 0]
    torch.testing.assert_close(left, right, atol=1e-4, rtol=0)
    ends = 0.25 * (background.texture[0, :, 1:3, 0] + background.texture[0, :, 1:3, 7]).sum(-1)
    torch.testing.assert_close(left, ends, atol=1e-4, rtol=0)


def test_an_environment_fits_a_gradient_over_the_sky():
    torch.manual_seed(0)
    background = NeuralEnvironmentMapBackground(NeuralEnvironmentMapBackground.Config())
    dirs = directions(4)
    target = (0.5 + 0.4 * dirs[..., 2:]).expand_as(dirs)
    optimizer = torch.optim.Adam(background.parameters(), lr=0.02)
    for _ in range(150):
        loss = F.mse_loss(background(dirs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-3


def test_eval_colour_is_shown_outside_training_only():
    cfg = NeuralEnvironmentMapBackground.Config(eval_color=[1.0, 0.5, 0.0])
    background = NeuralEnvironmentMapBackground(cfg)
    assert torch.equal(background.eval()(directions())[0, 0, 0], torch.tensor([1.0, 0.5, 0.0]))
    assert not torch.equal(background.train()(directions())[0, 0, 0], torch.tensor([1.0, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        (SolidColorBackground, {"color": [2.0, 0, 0]}),
        (SolidColorBackground, {"color": [1.0]}),
        (TexturedBackground, {"height": 0}),
        (NeuralEnvironmentMapBackground, {"eval_color": [0.5]}),
    ],
)
def test_wrong_settings_are_reported(cls, changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        cls(cls.Config(**changes))
