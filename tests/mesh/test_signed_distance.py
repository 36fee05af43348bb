"""Signed distances to meshes whose distances are known."""

import numpy as np
import pytest
import trimesh

from zero123s.mesh.signed_distance import SignedDistance


@pytest.fixture(scope="module")
def ball():
    sphere = trimesh.creation.icosphere(5, 0.5)
    return SignedDistance(np.asarray(sphere.vertices), np.asarray(sphere.faces), 50_000, 64)


def test_of_a_ball_everywhere(ball):
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (5000, 3))
    expected = np.linalg.norm(points, axis=1) - 0.5
    got = ball(points)
    assert (np.sign(got) == np.sign(expected))[np.abs(expected) > 0.002].all()
    near = np.abs(expected) < 0.02
    assert np.abs(got - expected)[near].max() < 1e-3
    assert np.abs(got - expected).max() < 0.01, "far away it is the distance to one of the surface points"


def test_outside_the_grid_it_is_positive(ball):
    np.testing.assert_allclose(ball(np.array([[5.0, 0, 0], [0, 0, -5.0]])), 4.5, atol=0.01)
