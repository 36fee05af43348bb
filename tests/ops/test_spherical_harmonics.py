import math

import pytest
import torch

from zero123s.errors import ConfigError
from zero123s.ops.spherical_harmonics import spherical_harmonics


def quadrature(n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and weights that integrate polynomials on the sphere exactly: Gauss in z, uniform in azimuth."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(n)
    z, w = torch.from_numpy(nodes), torch.from_numpy(weights)
    azimuth = torch.arange(2 * n, dtype=torch.float64) * math.pi / n
    r = (1 - z**2).sqrt()
    dirs = torch.stack(
        [r[:, None] * azimuth.cos(), r[:, None] * azimuth.sin(), z[:, None].expand(-1, 2 * n)], dim=-1
    ).reshape(-1, 3)
    return dirs, (w[:, None] * math.pi / n).expand(-1, 2 * n).reshape(-1)


def test_harmonics_are_orthonormal():
    dirs, weights = quadrature()
    y = spherical_harmonics(dirs, 4)
    torch.testing.assert_close(y.T @ (weights[:, None] * y), torch.eye(16, dtype=torch.float64), atol=1e-10, rtol=0)


def test_every_band_has_constant_power():
    dirs = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    y = spherical_harmonics(dirs, 4)
    for band in range(4):
        power = y[:, band**2 : (band + 1) ** 2].square().sum(-1)
        torch.testing.assert_close(power, torch.full_like(power, (2 * band + 1) / (4 * math.pi)))


def test_no_direction_is_the_mean_direction():
    dirs, weights = quadrature()
    mean = (weights[:, None] * spherical_harmonics(dirs, 4)).sum(0) / (4 * math.pi)
    torch.testing.assert_close(spherical_harmonics(torch.zeros(3, dtype=torch.float64), 4), mean, atol=1e-10, rtol=0)


@pytest.mark.parametrize("degree", [0, 5])
def test_unknown_degrees_are_reported(degree):
    with pytest.raises(ConfigError, match="degree"):
        spherical_harmonics(torch.zeros(1, 3), degree)
