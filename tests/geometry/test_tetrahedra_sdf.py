"""A signed distance on the nodes of a grid: its start, its moves, its gradients."""

import pytest
import torch

from zero123s.config.parse import parse
from zero123s.errors import ConfigError
from zero123s.geometry.tetrahedra_sdf import TetrahedraSDFGrid


def geometry(**settings):
    small = {"pos_encoding_config": {"n_levels": 2, "log2_hashmap_size": 6, "base_resolution": 4}}
    given = {"isosurface_resolution": 16, "radius": 2.0, **small, **settings}
    return TetrahedraSDFGrid(parse(TetrahedraSDFGrid.Config, given, "geometry"))


def points(n=200):
    return 3 * torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) - 1.5


def test_it_starts_as_the_shape_that_is_given():
    x = points()
    torch.testing.assert_close(geometry().value_at(x), x.norm(dim=-1) - 1.0, atol=0.06, rtol=0)
    ball = geometry(shape_init="sphere", shape_init_params=0.5)
    torch.testing.assert_close(ball.value_at(x), x.norm(dim=-1) - 0.5, atol=0.06, rtol=0)
    egg = geometry(shape_init="ellipsoid", shape_init_params=[0.5, 1.0, 1.5])
    on_axes = torch.diag(torch.tensor([0.5, 1.0, 1.5]))
    torch.testing.assert_close(egg.value_at(on_axes), torch.zeros(3), atol=0.05, rtol=0)


def test_nodes_hold_a_linear_distance_exactly():
    plane = geometry()
    plane.start_from_distance(lambda x: x[:, 0] + 0.5 * x[:, 2] - 0.25)
    x = points()
    torch.testing.assert_close(plane.value_at(x), x[:, 0] + 0.5 * x[:, 2] - 0.25)
    out = plane(x, frozenset({"normal", "sdf", "features"}))
    torch.testing.assert_close(out.sdf_grad, torch.tensor([1.0, 0.0, 0.5]).expand(200, 3), atol=1e-4, rtol=0)
    assert out.features.shape == (200, 3)


def test_moved_nodes_move_the_surface():
    moved = geometry()
    moved.start_from_distance(lambda x: x[:, 0])
    moved.deformation.data[0] = 0.5
    shift = moved.cell * float(torch.tanh(torch.tensor(0.5)))
    x = points()
    torch.testing.assert_close(moved.value_at(x), x[:, 0] - shift, atol=1e-4, rtol=0)
    moved.value_at(x).square().sum().backward()
    assert moved.deformation.grad[0].abs().sum() > 0


def test_a_fixed_geometry_learns_nothing():
    fixed = geometry(fix_geometry=True)
    assert not fixed.sdf.requires_grad
    assert not fixed.deformation.requires_grad
    assert geometry(isosurface_deformable_grid=False).deformation is None


def test_geometry_alone_has_no_features():
    bare = geometry(geometry_only=True)
    assert bare.n_features == 0
    assert bare(points(), frozenset({"features"})).features is None


def test_a_shape_without_its_size_is_refused():
    with pytest.raises(ConfigError, match="does not describe a sphere"):
        geometry(shape_init="sphere")
