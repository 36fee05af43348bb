"""Photos land on what they see, and the blend continues beyond."""

import numpy as np
import pytest
import trimesh

from zero123s.mesh.photo import Photos, exposure_match, screened_poisson_fill
from zero123s.mesh.processing import vertex_normals
from zero123s.ops.cameras import orbit_cameras
from zero123s.ops.rasterization.software import render_mesh
from zero123s.structures import Mesh, ReferenceView


@pytest.fixture(scope="module")
def ball():
    sphere = trimesh.creation.icosphere(5, 0.5)
    vertices, faces = np.asarray(sphere.vertices), np.asarray(sphere.faces)
    colors = 0.5 + 0.4 * np.sin(9 * vertices)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), vertex_colors=colors)


def photo(mesh, azimuth=0.0, size=128):
    import torch

    camera = orbit_cameras(10.0, azimuth, height=size, width=size)
    rgba = torch.from_numpy(render_mesh(mesh, camera)).float()[None]
    return ReferenceView(camera, rgba[..., :3], rgba[..., 3:])


def test_photo_projection_recovers_the_colours(ball):
    sampled, trust = Photos(ball, photo(ball)).sample(ball.vertices, ball.normals)
    trusted = trust > 0.5
    assert 0.25 < trusted.mean() < 0.5
    # Worst measured difference: 0.03, bilinear samples of a 128-pixel image.
    assert np.abs(sampled - ball.vertex_colors)[trusted].max() < 0.05
    assert trust[ball.vertices[:, 0] < -0.1].max() == 0, "the back is not seen"


def test_what_stands_in_front_hides(ball):
    wall = trimesh.creation.box([0.02, 0.4, 0.4])
    front = np.asarray(wall.vertices) + np.array([0.9, 0, 0.1])
    both = Mesh(
        np.concatenate([ball.vertices, front]),
        np.concatenate([ball.faces, np.asarray(wall.faces) + len(ball.vertices)]),
    )
    trust = Photos(both, photo(ball)).sample(ball.vertices, ball.normals)[1]
    center = np.argmax(ball.vertices @ [np.cos(np.deg2rad(10)), 0, np.sin(np.deg2rad(10))])
    assert trust[center] == 0


def test_exposure(ball):
    a = np.random.default_rng(0).random((500, 3))
    gain, offset = exposure_match(a, 1.2 * a - 0.05, np.ones(500))
    assert gain == pytest.approx(1.2)
    assert offset == pytest.approx(-0.05)
    flat = exposure_match(np.full((9, 3), 0.5), np.full((9, 3), 0.6), np.ones(9))
    assert flat[0] == pytest.approx(1.0)
    assert flat[1] == pytest.approx(0.1)


def test_membrane_keeps_trusted_values_and_fades(ball):
    x = ball.vertices[:, 0]
    values = np.ones((len(x), 1))
    result = screened_poisson_fill(ball.vertices, ball.faces, values, (x > 0).astype(float), reach=0.1)[:, 0]
    assert result[x > 0.1].min() > 0.95
    far = x < -0.45
    assert result[far].max() < 0.05
    assert ((result > -1e-3) & (result < 1.001)).all()
