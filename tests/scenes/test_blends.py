import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from zero123s.mesh.scene_mesh import Paint
from zero123s.scenes.blends import Bone, add_blend, ball, blend
from zero123s.scenes.primitives import Builder

RED, BLUE = Paint((1, 0, 0)), Paint((0, 0, 1))


def test_a_single_bone_is_a_capsule():
    solid, _ = blend([Bone((0, 0, 0), (0, 0, 0.6), 0.2, 0.2, RED)], smooth=0.05, cells=60)
    mesh = trimesh.Trimesh(solid.vertices, solid.faces)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(np.pi * 0.2**2 * 0.6 + 4 / 3 * np.pi * 0.2**3, rel=0.01)
    outward = solid.vertices - [0, 0, 1] * np.clip(solid.vertices[:, 2:], 0, 0.6)
    assert ((outward * solid.normals).sum(-1) > 0.9 * np.linalg.norm(outward, axis=-1)).all()


def test_bones_on_one_side_are_reflected_exactly():
    solid, _ = blend([ball((0, 0, 0), 0.2, RED), ball((0, 0.4, 0), 0.1, RED, mirror=True)], smooth=0.05, cells=40)
    distance, _ = cKDTree(solid.vertices * [1, -1, 1]).query(solid.vertices)
    assert distance.max() < 1e-5
    assert np.ptp(solid.vertices[:, 1]) == pytest.approx(1.0, abs=0.02)


def test_a_fillet_fills_the_gap_between_bones():
    bones = [ball((-0.22, 0, 0), 0.2, RED), ball((0.22, 0, 0), 0.2, RED)]
    apart, joined = (trimesh.Trimesh(*blend(bones, smooth, 40)[0][:2]) for smooth in (0.01, 0.2))
    assert apart.body_count == 2
    assert joined.body_count == 1


def test_faces_take_the_paint_of_the_nearest_bone():
    builder = Builder()
    add_blend(builder, [ball((0, 0, 0), 0.3, RED), ball((0, 0, 0.5), 0.25, BLUE)], smooth=0.05)
    scene = builder.build("two balls")
    height = scene.vertices[scene.faces].mean(axis=1)[:, 2]
    paint = np.array([scene.paints[i].color for i in scene.paint_of_face])
    assert (paint[height < 0.2] == RED.color).all()
    assert (paint[height > 0.3] == BLUE.color).all()
