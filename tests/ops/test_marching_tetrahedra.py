"""The marched surface: closed forms of a sphere and a plane, no gaps, outwards, and gradients."""

import math
from itertools import pairwise

import pytest
import torch
import trimesh

from zero123s.ops.marching_tetrahedra import cell_tetrahedra, marching_tetrahedra


def grid(resolution: int, dtype=torch.float32):
    """Nodes of the cube [-1, 1]^3 and its tetrahedra."""
    cells = torch.cartesian_prod(*[torch.arange(resolution)] * 3)
    nodes = torch.cartesian_prod(*[torch.linspace(-1, 1, resolution + 1, dtype=dtype)] * 3)
    return nodes, cell_tetrahedra(cells, resolution)


def sphere(resolution: int, radius: float = 0.71):
    nodes, tetrahedra = grid(resolution, torch.float64)
    return marching_tetrahedra(nodes, nodes.norm(dim=-1) - radius, tetrahedra)


def volume(vertices, faces):
    a, b, c = vertices[faces].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum() / 6


def test_six_positive_tetrahedra_fill_a_cell():
    nodes, tetrahedra = grid(1, torch.float64)
    a, b, c, d = nodes[tetrahedra].unbind(1)
    volumes = torch.linalg.det(torch.stack([b - a, c - a, d - a], dim=1)) / 6
    torch.testing.assert_close(volumes, torch.full((6,), 8 / 6, dtype=torch.float64))


@pytest.mark.parametrize("resolution", [12, 24])
def test_a_sphere_is_closed_with_area_and_volume(resolution):
    vertices, faces = sphere(resolution)
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    cell = 2 / resolution
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.71**3, rel=cell**2)
    assert mesh.area == pytest.approx(4 * math.pi * 0.71**2, rel=cell**2)
    assert mesh.volume > 0, "counter-clockwise seen from outside"


def test_radius_error_falls_with_squared_cell_size():
    errors = [(sphere(n)[0].norm(dim=-1) - 0.71).abs().max().item() for n in (10, 20, 40)]
    assert errors[0] < 0.2**2
    for coarse, fine in pairwise(errors):
        assert 3 < coarse / fine < 5.5


def test_a_plane_is_exact_in_every_direction():
    nodes, tetrahedra = grid(4, torch.float64)
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    vertices, faces = marching_tetrahedra(nodes, nodes @ normal - 0.1, tetrahedra)
    torch.testing.assert_close(vertices @ normal, torch.full((len(vertices),), 0.1, dtype=torch.float64))
    a, b, c = vertices[faces].unbind(1)
    assert (torch.linalg.cross(b - a, c - a) @ normal > -1e-12).all()


def test_any_signs_give_a_closed_surface():
    """Noise: every one of the sixteen cases, next to every other."""
    nodes, tetrahedra = grid(7)
    sdf = torch.randn(len(nodes), generator=torch.Generator().manual_seed(0))
    sdf = torch.where(nodes.abs().amax(-1) == 1, sdf.abs() + 0.1, sdf)
    vertices, faces = marching_tetrahedra(nodes, sdf, tetrahedra)
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0


def test_gradients_are_those_of_finite_differences():
    nodes, tetrahedra = grid(2, torch.float64)
    sdf = (nodes - 0.1).norm(dim=-1) - 0.8
    inputs = (nodes.requires_grad_(), sdf.detach().requires_grad_())
    assert torch.autograd.gradcheck(lambda x, s: volume(*marching_tetrahedra(x, s, tetrahedra)), inputs)


def test_volume_gradient_of_a_sphere_is_its_area():
    nodes, tetrahedra = grid(24, torch.float64)
    radius = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    enclosed = volume(*marching_tetrahedra(nodes, nodes.norm(dim=-1) - radius, tetrahedra))
    (gradient,) = torch.autograd.grad(enclosed, radius)
    assert gradient.item() == pytest.approx(4 * math.pi * 0.7**2, rel=0.01)


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_no_crossing_gives_an_empty_mesh(value):
    nodes, tetrahedra = grid(2)
    vertices, faces = marching_tetrahedra(nodes, torch.full((len(nodes),), value), tetrahedra)
    assert (vertices.shape, faces.shape) == ((0, 3), (0, 3))
    none = marching_tetrahedra(nodes[:0], nodes[:0, 0], tetrahedra[:0])
    assert (none[0].shape, none[1].shape) == ((0, 3), (0, 3))
