"""Sums of Gaussians against their closed form, and the cell lists against the reference."""

import math

import pytest
import torch

from zero123s.ops.gaussian_splatting import covariance_factors
from zero123s.ops.gaussian_sum import gaussian_sum, numba


def cloud(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    scales = 0.01 + 0.1 * torch.rand(n, 3, generator=g)
    return (
        0.4 * torch.randn(n, 3, generator=g),
        covariance_factors(scales, torch.randn(n, 4, generator=g)),
        torch.rand(n, 4, generator=g),
    )


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_one_gaussian_has_its_closed_form(backend):
    factors = torch.diag(torch.tensor([0.1, 0.2, 0.3]))[None]
    x = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    sums, gradients = gaussian_sum(x, torch.zeros(1, 3), factors, torch.tensor([[2.0, -3.0]]), backend)
    at_one_sigma = math.exp(-1.5)
    expected = torch.tensor([[2 * at_one_sigma, -3 * at_one_sigma], [2.0, -3.0], [0.0, 0.0]])
    torch.testing.assert_close(sums, expected)
    torch.testing.assert_close(gradients[0], -2 * at_one_sigma * torch.tensor([10.0, 5.0, 10 / 3]))


def test_numba_agrees_with_the_reference():
    x = 0.6 * torch.randn(2000, 3, generator=torch.Generator().manual_seed(1))
    ours, expected = (gaussian_sum(x, *cloud(200), backend=b) for b in ("numba", "reference"))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * float(b.abs().max()), rtol=1e-4)


def test_kept_cell_lists_follow_moved_gaussians():
    x = 0.6 * torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    means, factors, values = cloud(200)
    gaussian_sum(x, means, factors, values, "numba")
    lists = numba._kept[0]
    gaussian_sum(x[:10], means, factors, 2 * values, "numba")
    assert numba._kept[0] is lists, "the same Gaussians need no new lists"
    means += 0.2
    ours, expected = (gaussian_sum(x, means, factors, values, b)[0] for b in ("numba", "reference"))
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize(("points", "gaussians"), [(0, 5), (5, 0)])
def test_nothing_sums_to_zero(backend, points, gaussians):
    sums, gradients = gaussian_sum(torch.zeros(points, 3), *cloud(gaussians), backend=backend)
    assert sums.shape == (points, 4)
    assert gradients.abs().sum() == 0
