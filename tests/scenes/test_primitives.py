import numpy as np
import pytest
import trimesh

from zero123s.errors import MeshError
from zero123s.mesh.scene_mesh import FRUSTUM_RADIUS, Paint, normalize
from zero123s.scenes.primitives import Builder, box, capsule, cylinder, ellipsoid, extrude, lathe, torus, tube

SOLIDS = {
    # closed form of the exact volume, and how far a faceted one may stay below it
    "box": (box(1, 2, 3, 0.01), 6.0, 0.01),
    "cylinder": (cylinder(0.5, 2, segments=96), np.pi * 0.25 * 2, 0.002),
    "cone": (cylinder(0.5, 1.5, 1e-9, segments=96), np.pi * 0.25 * 1.5 / 3, 0.002),
    "ellipsoid": (ellipsoid(1, 0.5, 0.25, 64, 64), 4 / 3 * np.pi * 0.125, 0.005),
    "torus": (torus(1, 0.3, 96, 48), 2 * np.pi**2 * 0.09, 0.006),
    "capsule": (capsule((0, 0, 0), (0, 0, 2), 0.3), np.pi * 0.09 * 2 + 4 / 3 * np.pi * 0.027, 0.08),
    "prism": (extrude([(0, 0), (1, 0), (1, 1), (0, 1)], 0.5), 0.5, 1e-9),
    "clockwise prism": (extrude([(0, 0), (0, 1), (1, 1), (1, 0)], 0.5), 0.5, 1e-9),
}


@pytest.mark.parametrize(("solid", "volume", "tolerance"), SOLIDS.values(), ids=SOLIDS)
def test_solids_enclose_their_volume_and_face_outwards(solid, volume, tolerance):
    mesh = trimesh.Trimesh(solid.vertices, solid.faces, process=True)
    mesh.merge_vertices(merge_norm=True, merge_tex=True)
    assert mesh.volume == pytest.approx(volume, rel=max(tolerance, 1e-9))
    corners = solid.vertices[solid.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    real = np.linalg.norm(flat, axis=-1) > 1e-9
    towards = (flat[:, None] * solid.normals[solid.faces]).sum(-1)
    assert (towards[real].mean(axis=-1) > 0).all()
    assert np.linalg.norm(solid.normals, axis=-1) == pytest.approx(1, abs=1e-5)


def test_a_bent_tube_keeps_its_radius():
    t = np.linspace(0, np.pi, 60)
    solid = tube(np.stack([np.cos(t), np.sin(t), 0 * t], -1), 0.1, sides=48)
    from_axis = np.hypot(np.hypot(solid.vertices[:, 0], solid.vertices[:, 1]) - 1, solid.vertices[:, 2])
    middle = solid.vertices[:, 1] > 0.2
    assert from_axis[middle] == pytest.approx(0.1, abs=1e-3)


def test_only_a_sharp_profile_shades_as_edge():
    sharp, smooth = lathe([(0, 0), (1, 0), (1, 1)], 8), lathe([(0, 0), (1, 0), (1, 1)], 8, crease_deg=180)
    assert len(sharp.vertices) == 4 * 8
    assert len(smooth.vertices) == 3 * 8


def test_mirrored_parts_are_reflections_that_still_face_outwards():
    builder = Builder()
    builder.add(box(0.2, 0.3, 0.4), Paint((1, 0, 0)), at=(0, 1, 0), turn=(10, 20, 30), mirror=True)
    scene = builder.build("pair")
    half = len(scene.vertices) // 2
    assert np.allclose(scene.vertices[:half] * [1, -1, 1], scene.vertices[half:])
    assert trimesh.Trimesh(scene.vertices, scene.faces, process=False).volume == pytest.approx(0.048, rel=0.05)


def test_normalising_centres_and_scales_to_the_frustum():
    builder = Builder()
    builder.add(box(2, 4, 4, 1e-6), Paint((1, 0, 0)), at=(5, 5, 5))
    scene = normalize(builder.build("box"), fill=0.9)
    assert np.linalg.norm(scene.vertices, axis=-1).max() == pytest.approx(0.9 * FRUSTUM_RADIUS, rel=1e-5)
    assert scene.vertices.min(0) == pytest.approx(-scene.vertices.max(0), abs=1e-5)


def test_a_mesh_without_extent_is_refused():
    builder = Builder()
    builder.add(box(0, 0, 0, 0), Paint((1, 0, 0)))
    with pytest.raises(MeshError, match="no finite extent"):
        normalize(builder.build("dot"))
