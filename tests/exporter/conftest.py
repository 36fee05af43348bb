"""One painted mesh, written in every format, with a texture and with vertex colours."""

import numpy as np
import pytest
import trimesh

from zero123s.mesh.normal_map import bake_normal_map, vertex_tangents
from zero123s.mesh.processing import vertex_normals
from zero123s.mesh.texture import bake
from zero123s.mesh.unwrap import UnwrapOptions, unwrap
from zero123s.mesh.writers import WRITERS
from zero123s.structures import Mesh, Provenance

EXTRAS = Provenance("zero123s test", model_license="CC-BY <4.0> & more")


def paint(points):
    return (0.5 + 0.8 * points).clip(0, 1)


@pytest.fixture(scope="package")
def mesh():
    """An egg with its tip up and a nose in front; red grows to the front, green upwards, blue to its left (+y)."""
    ball = trimesh.creation.icosphere(3, 0.4)
    dense = np.asarray(ball.vertices) * [1.0, 0.8, 1.3], np.asarray(ball.faces)
    vertices, faces = dense
    vertices[:, 0] += 0.25 * (vertices[:, 0] > 0.37)
    result = unwrap(vertices, faces, UnwrapOptions(texture_size=256, time_limit_s=0))
    normals = vertex_normals(vertices, faces)[result.vertex_index]
    vertices = vertices[result.vertex_index]
    texture = bake(vertices, normals, result.faces, result.uvs, 256, lambda s: paint(s.points))
    tangents = vertex_tangents(vertices, normals, result.faces, result.uvs)
    bumps = bake_normal_map(vertices, normals, tangents, result.faces, result.uvs, dense, 64)
    return Mesh(vertices, result.faces, normals, paint(vertices), result.uvs, texture, bumps, EXTRAS, tangents)


@pytest.fixture(scope="package", params=["texture", "vertices"])
def files(request, mesh, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    shown = mesh if request.param == "texture" else Mesh(mesh.vertices, mesh.faces, mesh.normals, mesh.vertex_colors)
    shown.extras = EXTRAS
    written = {}
    for name, write in WRITERS.items():
        written[name] = write(shown, folder / name, "model", "png")[name]
    return written
