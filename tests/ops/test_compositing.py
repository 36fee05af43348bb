"""Compositing: closed forms and gradients."""

import pytest
import torch

from zero123s.ops import compositing
from zero123s.ops.compositing import composite, composite_alpha, visibility, visible_samples

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


def _rays(longest: int = 40) -> tuple[torch.Tensor, ...]:
    """Densities from clear to opaque along rays of 0 to `longest` samples."""
    g = torch.Generator().manual_seed(3)
    counts = torch.cat([torch.randint(0, longest, (50,), generator=g), torch.tensor([0, 1, longest])])
    info = torch.stack([counts.cumsum(0) - counts, counts], dim=-1)
    n = int(counts.sum())
    sigma = torch.rand(n, generator=g).pow(4) * 60
    t = torch.rand(n, generator=g)
    return sigma, t, info, torch.rand(n, 4, generator=g)


@pytest.mark.parametrize("early_stop_eps", [0.0, 1e-2])
def test_the_kernels_equal_the_reference(early_stop_eps):
    sigma, t, info, values = _rays()
    results = []
    for backend in ("numba", "reference"):
        leaves = [sigma.clone().requires_grad_(), values.clone().requires_grad_()]
        out = composite(leaves[0], t, t + 0.1, info, leaves[1], early_stop_eps, backend)
        loss = sum((o.cos() * o).sum() for o in out)
        results.append([*out, *torch.autograd.grad(loss, leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def test_opacity_one_has_a_gradient():
    alphas = torch.tensor([0.5, 1.0, 0.5, 0.2, 1.0])
    t, values, grads = torch.arange(5.0), torch.rand(5, 3), []
    for backend in ("numba", "reference"):
        leaf = alphas.clone().requires_grad_()
        colour = composite_alpha(leaf, t, t + 1, INFO, values, 0.0, backend)[3]
        grads += torch.autograd.grad(colour.square().sum(), leaf)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("limit", [compositing.FRONT_TO_BACK, 100])
def test_visible_samples_are_each_evaluated_once(limit, monkeypatch):
    monkeypatch.setattr(compositing, "AT_ONCE", 50)
    monkeypatch.setattr(compositing, "FRONT_TO_BACK", limit)
    monkeypatch.setattr(compositing, "FIRST", 3)
    sigma, t, info, _ = _rays(200)
    sigma[::5] = 500.0  # behind these is no light
    rays, requested = torch.repeat_interleave(torch.arange(len(info)), info[:, 1]), []

    def alphas_at(index):
        requested.append(index.clone())
        return -torch.expm1(-sigma[index] * 0.1)

    visible = visible_samples(alphas_at, rays, info, 0.01, 1e-4)
    assert torch.equal(visible, visibility(sigma, t, t + 0.1, info, 0.01, 1e-4))
    index = torch.cat(requested)
    assert len(index.unique()) == len(index)
    assert max(len(part) for part in requested) == 50
    n_first = int(info[:, 1].clamp(max=3).sum())
    assert n_first < len(index) < len(sigma) - 10 if limit == 100 else len(index) == len(sigma)
