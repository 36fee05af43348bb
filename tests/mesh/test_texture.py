"""Texture baking: the same texels whatever number of them is coloured at once."""

import numpy as np
import pytest

from zero123s.mesh import texture
from zero123s.mesh.texture import bake, texel_fragments

VERTICES = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])
UVS = np.array([[0.1, 0.1], [0.9, 0.2], [0.8, 0.9], [0.15, 0.7]])
NORMALS = np.array([[0.0, 0, 1], [0, 0.6, 0.8], [0, 0, 1], [0.6, 0, 0.8]])


@pytest.mark.parametrize("at_once", [1, 70, 32 * 7])
def test_bands_equal_baking_all_at_once(monkeypatch, at_once):
    sizes = []

    def color(surface):
        sizes.append(len(surface.points))
        return 0.5 * surface.points + 0.5 * surface.normals.clip(0, 1) * surface.interpolate(UVS)[:, :1]

    whole = bake(VERTICES, NORMALS, FACES, UVS, 16, color)
    assert len(sizes) == 1
    monkeypatch.setattr(texture, "POINTS_AT_ONCE", at_once)
    bands = bake(VERTICES, NORMALS, FACES, UVS, 16, color)
    np.testing.assert_allclose(bands, whole, atol=1e-6)
    assert max(sizes[1:]) <= max(at_once, 32)
    assert sum(sizes[1:]) == sizes[0]


def test_rows_of_the_layout_are_its_part():
    whole = texel_fragments(UVS, FACES, 20)
    part = texel_fragments(UVS, FACES, 20, slice(7, 12))
    np.testing.assert_array_equal(part.face_id, whole.face_id[7:12])
    np.testing.assert_allclose(part.bary, whole.bary[7:12], atol=1e-12)
