"""Tangents against closed forms, and a light mesh that gets the dense one's shape back through its normal map."""

import numpy as np
import pytest
import trimesh

from zero123s.mesh.normal_map import bake_normal_map, tangent_basis, vertex_tangents
from zero123s.mesh.processing import simplify, vertex_normals
from zero123s.mesh.unwrap import UnwrapOptions, unwrap
from zero123s.ops.rasterization.software import sample_texture


@pytest.mark.parametrize("mirrored", [False, True])
def test_tangents_of_a_square_point_where_u_grows(mirrored):
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    uvs = vertices[:, :2] * ([-0.5, 0.25] if mirrored else [0.5, 0.25]) + [0.6, 0.1]
    tangents = vertex_tangents(vertices, np.tile([0.0, 0, 1], (4, 1)), faces, uvs)
    expected = [-1, 0, 0, -1] if mirrored else [1, 0, 0, 1]
    np.testing.assert_allclose(tangents, np.tile(expected, (4, 1)), atol=1e-12)
    basis = tangent_basis(tangents, np.tile([0.0, 0, 1], (4, 1)))
    np.testing.assert_allclose(basis[0, 1], [0, 1, 0], atol=1e-12, err_msg="v grows along y in both")


def test_vertices_without_texture_area_get_unit_tangents():
    tangents = vertex_tangents(np.eye(3), np.tile([0.0, 0, 1], (3, 1)), np.array([[0, 1, 2]]), np.zeros((3, 2)))
    np.testing.assert_allclose(np.linalg.norm(tangents[:, :3], axis=1), 1)
    np.testing.assert_allclose(tangents[:, 2], 0, atol=1e-12)


def bumpy_ball():
    """A ball with waves that 500 faces cannot hold, and the unit normal of its surface at any of its points."""
    ball = trimesh.creation.icosphere(6, 1.0)
    directions = np.asarray(ball.vertices)
    return directions * (1 + 0.02 * np.sin(14 * directions).sum(1, keepdims=True)), np.asarray(ball.faces)


def angles(a, b):
    return np.degrees(np.arccos((a * b).sum(1).clip(-1, 1)))


def test_the_light_mesh_shows_the_dense_ones_normals():
    dense = bumpy_ball()
    vertices, faces = simplify(*dense, 500)
    result = unwrap(vertices, faces, UnwrapOptions(texture_size=512))
    normals = vertex_normals(vertices, faces)[result.vertex_index]
    vertices, faces, uvs = vertices[result.vertex_index], result.faces, result.uvs
    tangents = vertex_tangents(vertices, normals, faces, uvs)
    image = bake_normal_map(vertices, normals, tangents, faces, uvs, dense, 512)

    def interpolated(values):
        return values[faces].mean(1)

    smooth = interpolated(normals)
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True)
    basis = tangent_basis(interpolated(tangents), smooth)
    stored = 2 * sample_texture(np.round(image * 255) / 255, interpolated(uvs)) - 1
    shown = np.einsum("nij,ni->nj", basis, stored)
    shown /= np.linalg.norm(shown, axis=1, keepdims=True)
    middle = interpolated(vertices)
    nearest = np.linalg.norm(dense[0][None] - middle[:, None], axis=-1).argmin(1)
    expected = vertex_normals(*dense)[nearest]
    assert angles(smooth, expected).mean() > 6, "without the map the waves are gone"
    assert angles(shown, expected).mean() < 2
