import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from zero123s.errors import ConfigError
from zero123s.geometry.scalar_field import NORMAL_TYPES
from zero123s.geometry.volume_grid import VolumeGrid
from zero123s.ops.voxel_grid import sample_voxels

SMALL = VolumeGrid.Config(radius=1.0, grid_size=[8, 10, 12])


def build(**changes) -> VolumeGrid:
    torch.manual_seed(0)
    return VolumeGrid(replace(SMALL, **changes))


def random_points(n: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) - 0.5


def test_interpolation_is_grid_samples():
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(4, 5, 6, 7, generator=generator, dtype=torch.float64)
    x = torch.rand(200, 3, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    theirs = F.grid_sample(grid[None], (2 * x - 1)[None, None, None], padding_mode="border", align_corners=False)
    torch.testing.assert_close(sample_voxels(grid, x), theirs[0, :, 0, 0].T)


def test_interpolation_is_differentiable_twice():
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(2, 3, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    x = (0.3 + 0.3 * torch.rand(5, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(sample_voxels, (grid, x))
    assert torch.autograd.gradgradcheck(sample_voxels, (grid, x))


def test_it_starts_as_a_cone():
    x = torch.tensor([[0.0, 0, 0], [0.5, 0, 0]])
    torch.testing.assert_close(build().density(x), F.softplus(torch.tensor([5.0, 0.0])), atol=2e-5, rtol=0)
    constant = build(density_bias=-1.0)
    assert constant.density(x)[0].item() == pytest.approx(math.log1p(math.exp(-1)))
    assert isinstance(constant.density_scale, torch.nn.Parameter)


@pytest.mark.parametrize("normal_type", NORMAL_TYPES)
def test_normals_point_outwards_and_train_the_grid(normal_type):
    geometry, x = build(normal_type=normal_type), random_points()
    out = geometry(x, frozenset({"features", "normal", "normal_perturbed"}), torch.Generator().manual_seed(0))
    outwards = F.normalize(x, dim=-1)
    assert (out.normal * outwards).sum(-1).min() > 0.97
    assert out.features.shape == (64, 3)
    (out.normal - out.normal_perturbed).abs().mean().backward()
    trained = geometry.normal_grid if normal_type == "pred" else geometry.grid
    assert torch.isfinite(trained.grad).all()
    assert trained.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid_size": [8, 8]}, "three numbers"),
        ({"density_bias": "blob_magic3d"}, "neither a number nor blob"),
        ({"finite_difference_normal_eps": "progressive"}, "ProgressiveBandHashGrid"),
        ({"normal_type": "analitic"}, "normal_type"),
    ],
)
def test_wrong_settings_are_reported(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)
