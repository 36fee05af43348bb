"""Sparse sampling against dense, marching cubes against closed forms, the level against silhouettes."""

import numpy as np
import pytest
import torch
import trimesh

from zero123s.config.parse import parse_slot
from zero123s.geometry import GEOMETRIES
from zero123s.material.plain import NoMaterial
from zero123s.mesh import isosurface
from zero123s.mesh.isosurface import (
    choose_level,
    marching_cubes,
    occupied_bounds,
    refine_vertices,
    sample_dense,
    sample_sparse,
    sparse_resolution,
)
from zero123s.system.field import GeometryMaterialField

LOWER, UPPER = np.full(3, -1.0), np.full(3, 1.0)


def sphere(x: torch.Tensor) -> torch.Tensor:
    return 0.6 - x.norm(dim=-1)


def torus(x: torch.Tensor) -> torch.Tensor:
    ring = torch.stack([x[:, :2].norm(dim=-1) - 0.6, x[:, 2]], -1)
    return 0.2 - ring.norm(dim=-1)


def wavy(x: torch.Tensor) -> torch.Tensor:
    return sphere(x) + 0.08 * (x * 12).sin().prod(-1)


@pytest.mark.parametrize("fn", [sphere, torus, wavy])
def test_sparse_signs_equal_dense(fn):
    dense = sample_dense(fn, 96, LOWER, UPPER)
    sparse = sample_sparse(fn, 0.0, 96, LOWER, UPPER, base=24)
    assert ((dense.values > 0) == (sparse.values > 0)).all()
    assert sparse.n_evaluated < 0.35 * dense.n_evaluated
    for a, b in zip(marching_cubes(dense, 0.0), marching_cubes(sparse, 0.0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("expected", "got"), [(64, 64), (100, 100), (128, 128), (130, 132), (256, 256), (500, 504), (512, 512)]
)
def test_sparse_resolution(expected, got):
    assert sparse_resolution(expected) == got


def test_sphere_volume_area_and_orientation():
    vertices, faces = marching_cubes(sample_dense(sphere, 64, LOWER, UPPER), 0.0)
    mesh = trimesh.Trimesh(vertices, faces)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    # Worst measured error at 64^3: 0.15 % of the volume; positive = normals point outwards.
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=5e-3)
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.6).max() < 2e-3


def test_torus_has_one_hole():
    vertices, faces = marching_cubes(sample_sparse(torus, 0.0, 64, LOWER, UPPER, base=32), 0.0)
    mesh = trimesh.Trimesh(vertices, faces)
    assert mesh.is_watertight
    assert mesh.euler_number == 0
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.6 * 0.2**2, rel=2e-2)


def test_object_cut_by_the_box_gets_a_lid():
    grid = sample_dense(lambda x: 0.5 - x[:, 0], 16, LOWER, UPPER)
    mesh = trimesh.Trimesh(*marching_cubes(grid, 0.0))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(1.5 * 4, rel=0.2)


def test_empty_and_non_finite_fields():
    empty = sample_dense(lambda x: x.new_full((len(x),), -1.0), 8, LOWER, UPPER)
    assert occupied_bounds(empty, 0.0) is None
    assert marching_cubes(empty, 0.0)[0].shape == (0, 3)
    holed = sample_dense(lambda x: torch.where(x[:, 0] > 0.5, x.new_tensor(float("nan")), sphere(x)), 32, LOWER, UPPER)
    assert np.isfinite(marching_cubes(holed, 0.0)[0]).all()


def test_bounds_contain_the_surface():
    lower, upper = occupied_bounds(sample_dense(sphere, 20, LOWER, UPPER), 0.0)
    assert (lower <= -0.6).all()
    assert (upper >= 0.6).all()
    assert (upper - lower < 1.6).all()


def test_the_chosen_level_matches_the_silhouette():
    def density(x):
        return 40 * torch.sigmoid((0.5 - x.norm(dim=-1)) / 0.03)

    g = np.stack(np.meshgrid(np.linspace(-0.95, 0.95, 64), np.linspace(-0.95, 0.95, 64)), -1).reshape(-1, 2)
    origins = np.concatenate([np.full((len(g), 1), 3.0), g], 1)
    directions = np.tile([-1.0, 0, 0], (len(g), 1))
    choice = choose_level(density, density, [(origins, directions, None)], (LOWER, UPPER))
    assert choice.iou.max() > 0.99
    # Radius of the chosen level set against the radius at which the rendered opacity is one half.
    radius = 0.5 - 0.03 * np.log(choice.level / (40 - choice.level))
    s = torch.linspace(-1, 1, 2001)
    radii = np.linspace(0.3, 0.7, 400)
    depth = [float(density(torch.stack([s, torch.full_like(s, r), 0 * s], -1)).sum() * 0.001) for r in radii]
    half = radii[np.argmin(np.abs(np.array(depth) - np.log(2)))]
    assert radius == pytest.approx(half, abs=0.02)
    by_mask = choose_level(density, density, [(origins, directions, np.linalg.norm(g, axis=1) < 0.4)], (LOWER, UPPER))
    assert by_mask.level > choice.level


@pytest.mark.parametrize(("kind", "evaluations"), [("implicit-volume", 1), ("implicit-sdf", 2)])
def test_a_density_is_evaluated_once_for_its_level(kind, evaluations, monkeypatch):
    _, cfg = parse_slot(GEOMETRIES, kind, {"radius": 1.0}, "geometry")
    geometry = GEOMETRIES.get(kind)(cfg)
    field = GeometryMaterialField(geometry, NoMaterial(NoMaterial.Config(), geometry.n_features))
    points_per_call = []
    evaluate = isosurface.evaluate_points
    monkeypatch.setattr(isosurface, "evaluate_points", lambda fn, x: points_per_call.append(len(x)) or evaluate(fn, x))
    origins, directions = np.array([[3.0, 0, 0], [3.0, 0.1, 0]]), np.array([[-1.0, 0, 0]] * 2)
    choose_level(field.surface_level, field.density, [(origins, directions, None)], (LOWER, UPPER), n_samples=8)
    assert points_per_call == [16] * evaluations


def test_no_opaque_ray_means_no_level():
    origins, directions = np.array([[3.0, 0, 0]]), np.array([[-1.0, 0, 0]])
    assert choose_level(sphere, lambda x: 0 * x[:, 0], [(origins, directions, None)], (LOWER, UPPER)) is None


def test_vertices_lie_on_a_steep_level_set():
    def density(x):
        return torch.exp(60 * (0.5 - x.norm(dim=-1)))

    grid = sample_dense(density, 24, np.full(3, -0.8), np.full(3, 0.8))
    inside = grid.values > 1.0
    vertices, _ = marching_cubes(grid, 1.0)
    off = np.abs(np.linalg.norm(vertices, axis=1) - 0.5)
    settled_off = np.abs(np.linalg.norm(refine_vertices(density, 1.0, vertices, grid, inside), axis=1) - 0.5)
    cell = 1.6 / 24
    assert off.mean() > 0.1 * cell, "interpolated linearly, steep densities puff the surface up"
    assert settled_off.max() < 0.04 * cell * np.sqrt(3)


def test_vertices_of_filled_edges_stay():
    def ball(x):
        return 0.5 - x.norm(dim=-1)

    grid = sample_dense(ball, 16, np.full(3, -0.8), np.full(3, 0.8))
    vertices, _ = marching_cubes(grid, 0.0)
    nowhere = np.zeros(grid.values.shape, bool)
    np.testing.assert_array_equal(refine_vertices(ball, 0.0, vertices, grid, nowhere), vertices)
