"""Faces that cross are found, faces that touch are not."""

import numpy as np
import trimesh

from zero123s.mesh.self_intersection import self_intersecting


def test_only_overlapping_boxes_cross():
    box = trimesh.creation.box([1, 1, 1])
    faces = np.concatenate([box.faces, box.faces + 8])
    # Turned, so that no face lies in a face of the other.
    turn = trimesh.transformations.rotation_matrix(0.5, [1, 2, 3])[:3, :3]
    crossing = np.concatenate([box.vertices, box.vertices @ turn.T + [0.6, 0.2, 0.1]])
    assert self_intersecting(crossing, faces).sum() >= 4
    assert not self_intersecting(np.concatenate([box.vertices, box.vertices @ turn.T + [3, 0, 0]]), faces).any()


def test_crossing_counts_equal_those_of_all_pairs():
    ball = trimesh.creation.icosphere(3)
    assert not self_intersecting(ball.vertices, ball.faces).any()
    rng = np.random.default_rng(0)
    soup = rng.random((60, 1, 3)) + 0.2 * rng.standard_normal((60, 3, 3))
    got = self_intersecting(soup.reshape(-1, 3), np.arange(180).reshape(-1, 3))
    expected = np.zeros(60, bool)
    for i in range(60):
        edges = np.roll(soup[i], -1, axis=0) - soup[i]
        for j in range(60):
            if i != j:
                for origin, edge in zip(soup[i], edges, strict=True):
                    expected[[i, j]] |= crosses(origin, edge, soup[j])
    np.testing.assert_array_equal(got, expected)


def crosses(origin, edge, triangle):
    """Solve origin + t edge = p + u e1 + v e2."""
    p, q, r = triangle
    t, u, v = np.linalg.solve(np.stack([edge, p - q, p - r], -1), p - origin)
    return 0 < t < 1 and u > 0 and v > 0 and u + v < 1
