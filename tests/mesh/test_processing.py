"""Repair closes what is open and cuts out what is tangled; simplification keeps a mesh closed."""

import numpy as np
import pytest
import trimesh

from zero123s.mesh.processing import has_consistent_winding, is_closed, mesh_health, repair, signed_volume, simplify


@pytest.fixture(scope="module")
def ball():
    sphere = trimesh.creation.icosphere(4, 0.5)
    return np.asarray(sphere.vertices), np.asarray(sphere.faces)


def sound(vertices, faces):
    return is_closed(faces) and has_consistent_winding(faces) and signed_volume(vertices, faces) > 0


def test_only_an_inside_out_mesh_is_turned(ball):
    _, faces = repair(*ball)
    np.testing.assert_array_equal(faces, ball[1])
    assert sound(*repair(ball[0], ball[1][:, ::-1]))


def test_holes_of_all_sizes_are_covered(ball):
    rng = np.random.default_rng(0)
    vertices, faces = ball
    keep = rng.random(len(faces)) > 0.2
    keep &= np.linalg.norm(vertices[faces].mean(1) - [0.5, 0, 0], axis=1) > 0.15
    closed = repair(vertices, faces[keep])
    assert sound(*closed)
    assert signed_volume(*closed) == pytest.approx(signed_volume(*ball), rel=0.1)


def test_fins_flipped_and_doubled_faces_are_removed(ball):
    vertices, faces = ball
    fin = np.array([[faces[0, 0], faces[0, 1], len(vertices)]])
    tangled = np.concatenate([faces[:-1], faces[-1:, ::-1], fin, faces[100:101]])
    mended = repair(np.concatenate([vertices, [[0.9, 0.9, 0.9]]]), tangled)
    assert sound(*mended)
    assert np.abs(mended[0]).max() < 0.51, "the fin's tip is gone"


def test_two_holes_that_meet_in_one_vertex(ball):
    vertices, faces = ball
    around = np.flatnonzero((faces == 7).any(axis=1))
    opposite = [around[0], next(f for f in around[1:] if len(set(faces[f]) & set(faces[around[0]])) == 1)]
    assert sound(*repair(vertices, np.delete(faces, opposite, axis=0)))


def test_simplified_noise_stays_closed():
    rng = np.random.default_rng(1)
    from skimage.measure import marching_cubes

    values = rng.standard_normal((24, 24, 24))  # a sponge: many thin walls and handles
    vertices, faces, *_ = marching_cubes(np.pad(values, 1, constant_values=-3.0), 0.3, gradient_direction="ascent")
    small = simplify(vertices, faces.astype(np.int64), len(faces) // 8)
    health = mesh_health(*small)
    assert (health.watertight, health.winding_consistent) == (True, True)
    assert health.faces <= len(faces) // 8, "the budget holds, faces that cover holes included"
