"""The photo's detail on unseen sides: where the object is symmetric, and nowhere else."""

import numpy as np
import pytest
import torch
import trimesh

from zero123s.exporter.texturing import PhotoBlend, TextureOptions
from zero123s.mesh.photo import Photos
from zero123s.mesh.processing import vertex_normals
from zero123s.mesh.surface_graph import SurfaceGraph
from zero123s.mesh.symmetry import SymmetricDetail, vertical_symmetries
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.rasterization.software import render_mesh
from zero123s.structures import Mesh, ReferenceView

CREAM = np.array([0.8, 0.7, 0.6])


@pytest.fixture(scope="module")
def ball():
    sphere = trimesh.creation.icosphere(5, 0.5)
    vertices, faces = np.asarray(sphere.vertices), np.asarray(sphere.faces)
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def photographed(mesh, colors, azimuths=(0.0,)):
    painted = Mesh(mesh.vertices, mesh.faces, mesh.normals, vertex_colors=colors)
    cameras = orbit_cameras(torch.zeros(len(azimuths)), torch.tensor(azimuths), height=128, width=128)
    images = [render_mesh(painted, cameras.select(slice(i, i + 1))) for i in range(len(azimuths))]
    rgba = torch.from_numpy(np.stack(images)).float()
    return ReferenceView(cameras, rgba[..., :3], rgba[..., 3:])


def blended(mesh, base, view, symmetric):
    blend = PhotoBlend(mesh, base, view, TextureOptions(photo_symmetry=symmetric))
    return blend(base, mesh.vertices, mesh.normals, lambda values: values), blend


def belts(mesh, strength=0.25):
    """A ball with belts around the vertical: the same from all sides."""
    return CREAM + strength * np.sin(40 * mesh.vertices[:, 2:]) * [1, 0.5, -0.5]


def test_faint_belts_become_those_of_the_photo(ball):
    truth, faint = belts(ball), belts(ball, 0.08)
    base = faint + 0.05 * np.random.default_rng(0).standard_normal(truth.shape)
    back = ball.vertices[:, 0] < -0.3
    view = photographed(ball, truth)
    errors = [np.sqrt(((blended(ball, base, view, on)[0] - truth)[back] ** 2).mean()) for on in (False, True)]
    assert errors[1] < 0.5 * errors[0], errors


def test_mottle_of_a_plain_object_is_gone(ball):
    truth = np.tile(CREAM, (len(ball.vertices), 1))
    base = truth + 0.08 * np.random.default_rng(0).standard_normal(truth.shape)
    back = ball.vertices[:, 0] < -0.3
    view = photographed(ball, truth)
    spread = [blended(ball, base, view, on)[0][back].std(0).mean() for on in (False, True)]
    assert spread[1] < 0.4 * spread[0], spread


def test_a_face_stays_in_front(ball):
    eyes = np.linalg.norm(ball.vertices[:, None] - 0.5 * np.array([[0.9, 0.3, 0.3], [0.9, -0.3, 0.3]]), axis=2).min(1)
    truth = np.where(eyes[:, None] < 0.1, 0.1, CREAM)
    base = np.tile(CREAM, (len(truth), 1)) + 0.03 * np.random.default_rng(0).standard_normal(truth.shape)
    result, blend = blended(ball, base, photographed(ball, truth), True)
    assert blend.detail.share > 0.1, "the plain rest is taken over"
    mirrored_eyes = eyes[ball.vertices[:, 0] > 0].argmin()
    at = np.flatnonzero(ball.vertices[:, 0] > 0)[mirrored_eyes]
    behind = np.argmin(np.linalg.norm(ball.vertices - ball.vertices[at] * [-1, 1, 1], axis=1))
    assert result[at].max() < 0.3
    assert result[behind].min() > 0.45


def test_another_colour_behind_is_kept(ball):
    truth = belts(ball)
    blue = np.tile([0.2, 0.3, 0.9], (len(truth), 1))
    base = np.where(ball.vertices[:, :1] < 0, blue, truth)
    far = ball.vertices[:, 0] < -0.3
    off, on = (blended(ball, base, photographed(ball, truth), symmetric)[0] for symmetric in (False, True))
    assert np.abs(on - off)[far].max() < 0.03


def test_only_a_single_photo_is_carried_over(ball):
    base = belts(ball, 0.1)
    assert blended(ball, base, photographed(ball, belts(ball), (0.0, 180.0)), True)[1].detail is None
    assert blended(ball, base, photographed(ball, belts(ball)), False)[1].detail is None


def test_no_symmetry_leaves_colours_alone(ball):
    view = photographed(ball, np.zeros((len(ball.vertices), 3)))
    white = np.ones((len(ball.vertices), 3))
    detail = SymmetricDetail(ball, white, np.zeros(len(white)), Photos(ball, view))
    assert detail.symmetries == []
    assert detail.share == 0
    assert (detail(white, ball.vertices, ball.normals, lambda values: values) == white).all()


def test_symmetries_keep_lengths_and_the_vertical():
    matrices = vertical_symmetries(30.0)
    for matrix in matrices:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(matrix @ [0, 0, 1], [0, 0, 1], atol=1e-12)
    view = np.array([np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30)), 0])
    np.testing.assert_allclose(matrices[0] @ view, -view, atol=1e-12)
    assert np.linalg.det(matrices[0]) == pytest.approx(-1)
    assert np.linalg.det(matrices[-1]) == pytest.approx(1)


def test_smoothing_has_the_width_of_a_gaussian():
    n = 41
    x, y = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    corner = (x[: -n - 1] * n + y[: -n - 1])[(y < n - 1)[: -n - 1]]
    faces = np.concatenate(
        [np.stack([corner, corner + n, corner + n + 1], 1), np.stack([corner, corner + n + 1, corner + 1], 1)]
    )
    graph = SurfaceGraph(np.stack([x, y, 0 * x], 1).astype(float), faces)
    impulse = np.zeros((n * n, 1))
    impulse[n * n // 2] = 1
    response = graph.smooth(impulse, sigma=4.0)[:, 0]
    width = np.sqrt((response * (x - n // 2) ** 2).sum() / response.sum())
    assert width == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 300])
def test_smoothing_equals_repeated_means_of_neighbours(n_steps):
    mesh = trimesh.creation.icosphere(3)
    graph = SurfaceGraph(mesh.vertices, mesh.faces)
    values = np.random.default_rng(0).random((len(mesh.vertices), 2))
    expected = values
    for _ in range(n_steps):
        expected = 0.5 * expected + 0.5 * (graph.adjacency @ expected) / graph.degree[:, None]
    np.testing.assert_allclose(graph._diffuse(values, n_steps), expected, atol=2e-6)


def test_smoothing_crosses_seams_and_ignores_weightless_values():
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    graph = SurfaceGraph(square, np.array([[0, 1, 2], [3, 4, 5]]))
    values = np.array([[0.0], [1.0], [9.0], [0.0], [9.0], [0.0]])
    weights = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    smooth = graph.smooth(values, 10.0, weights)[:, 0]
    assert smooth == pytest.approx(np.full(6, smooth[0]), abs=1e-6)
    assert smooth[0] == pytest.approx(1 / 3, abs=0.15)
