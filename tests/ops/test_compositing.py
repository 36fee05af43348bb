"""Compositing: closed forms and gradients."""

import pytest
import torch

from zero123s.ops.compositing import composite, composite_alpha, visibility

INFO = torch.tensor([[0, 2], [2, 0], [2, 3]])


def test_a_uniform_medium_follows_beers_law():
    t = torch.arange(10.0, dtype=torch.float64) * 0.1
    info = torch.tensor([[0, 10]])
    sigma = torch.full((10,), 2.0, dtype=torch.float64)
    _, opacity, _, colour = composite(sigma, t, t + 0.1, info, torch.full((10, 3), 0.5, dtype=torch.float64))
    torch.testing.assert_close(opacity, 1 - torch.exp(torch.tensor([-2.0], dtype=torch.float64)))
    torch.testing.assert_close(colour, 0.5 * opacity[:, None].expand(1, 3))


@pytest.mark.parametrize("function", [composite, composite_alpha])
def test_gradients(function):
    g = torch.Generator().manual_seed(0)
    density, t = (torch.rand(5, generator=g, dtype=torch.float64) for _ in range(2))
    values = torch.rand(5, 2, generator=g, dtype=torch.float64, requires_grad=True)
    density.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, v: function(s, t, t + 0.3, INFO, v), (density, values))


def test_rays_without_samples_are_empty():
    none = torch.zeros(0)
    _, opacity, _, colour = composite(none, none, none, torch.zeros(3, 2, dtype=torch.long), torch.zeros(0, 3))
    assert opacity.tolist() == [0, 0, 0]
    assert colour.shape == (3, 3)


def test_what_stands_behind_an_opaque_sample_is_invisible():
    sigma, t = torch.tensor([1e3, 1.0, 0.0, 1.0, 1.0]), torch.arange(5.0)
    assert visibility(sigma, t, t + 1, INFO, 0.01, 1e-4).tolist() == [True, False, False, True, True]
