"""Metrics against closed forms and against scikit-image and trimesh."""

import numpy as np
import pytest
import trimesh
from skimage.metrics import structural_similarity

from zero123s.images.image_metrics import mask_iou, psnr, relative_roughness, roughness, ssim
from zero123s.mesh.metrics import (
    align_similarity,
    chamfer,
    f_score,
    fit_similarity,
    normal_consistency,
    sample_surface,
    silhouette_iou,
    uv_health,
    volume_iou,
    voxelize,
)
from zero123s.mesh.processing import mesh_health
from zero123s.ops.cameras import orbit_cameras
from zero123s.structures import Mesh


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def box(size=1.0, offset=(0.0, 0.0, 0.0)):
    mesh = trimesh.creation.box([size] * 3)
    return np.asarray(mesh.vertices) + offset, np.asarray(mesh.faces)


def test_psnr_closed_form():
    a = np.zeros((4, 4, 3))
    assert psnr(a, a + 0.1) == pytest.approx(20.0)
    assert psnr(a, a) == 100.0


def test_ssim_is_scikit_images(rng):
    a = rng.random((40, 32, 3))
    b = (a + 0.2 * rng.standard_normal(a.shape)).clip(0, 1)
    theirs = structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=-1
    )
    assert ssim(a, b) == pytest.approx(theirs, abs=1e-9)
    assert ssim(a, a) == pytest.approx(1.0)


def test_mask_iou():
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    assert mask_iou(a, b) == 1.0
    a[:2], b[1:3] = 1, 1
    assert mask_iou(a, b) == pytest.approx(1 / 3)


def test_roughness_sees_speckle_and_no_outline(rng):
    mask = np.zeros((16, 16))
    mask[4:12, 4:12] = 1
    flat = np.where(mask[..., None] > 0.5, [0.2, 0.5, 0.3], 1.0)
    assert roughness(flat, mask) == pytest.approx(0, abs=1e-12)
    checks = flat + 0.1 * mask[..., None] * (np.indices((16, 16)).sum(0) % 2)[..., None]
    assert roughness(checks, mask) == pytest.approx(0.4)
    ramp = flat + 0.01 * np.arange(16)[:, None, None]
    assert roughness(ramp, mask) == pytest.approx(0, abs=1e-12)
    assert roughness(checks, np.zeros((16, 16))) == 0


def test_relative_roughness_is_one_for_equals():
    assert relative_roughness([0.0, 0.0], [0.0, 0.0]) == 1
    assert relative_roughness([0.1, 0.3], [0.3, 0.1]) == 1
    assert relative_roughness([0.4], [0.2]) == pytest.approx(2, rel=0.01)


def test_surface_samples_are_even_and_on_it(rng):
    points, _ = sample_surface(*box(), 20000, rng)
    assert np.abs(np.abs(points).max(1) - 0.5).max() < 1e-12
    assert (points[:, 0] == 0.5).mean() == pytest.approx(1 / 6, abs=0.02)


def test_chamfer_and_f_score_of_shifted_planes():
    g = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)
    a = np.concatenate([g, np.zeros((400, 1))], 1)
    b = a + np.array([0, 0, 0.3])
    assert chamfer(a, b) == pytest.approx(0.3)
    assert f_score(a, b, 0.29) == 0.0
    assert f_score(a, b, 0.31) == 1.0
    half = a[a[:, 0] < 10]
    assert f_score(half, a, 0.1) == pytest.approx(2 / 3)


def test_normals_of_turned_planes(rng):
    flat = box()
    points, normals = sample_surface(*flat, 4000, rng)
    np.testing.assert_allclose(np.abs(normals).max(1), 1)
    np.testing.assert_allclose((normals * np.sign(points)).max(1), 1, err_msg="outwards")
    turn = trimesh.transformations.rotation_matrix(np.pi / 3, [0, 0, 1])[:3, :3]
    upright = np.abs(normals[:, 2]) < 0.5
    sides, side_normals = points[upright], normals[upright]
    assert normal_consistency(sides, side_normals, sides, -side_normals) == pytest.approx(1)
    assert normal_consistency(sides, side_normals, sides, side_normals @ turn.T) == pytest.approx(0.5)


def test_similarity_is_recovered(rng):
    source = rng.standard_normal((100, 3))
    rotation = trimesh.transformations.random_rotation_matrix(rng.random(3))[:3, :3]
    target = 1.7 * source @ rotation.T + [1, 2, 3]
    fit = fit_similarity(source, target)
    np.testing.assert_allclose(fit(source), target, atol=1e-12)
    assert np.linalg.det(fit.rotation) == pytest.approx(1.0)


def test_alignment_finds_scale_shift_and_quarter_turns(rng):
    vertices, faces = box()
    points, _ = sample_surface(vertices * [1.0, 2.0, 0.6] + (vertices[:, :1] > 0) * [0.0, 0.3, 0.4], faces, 1500, rng)
    turn = trimesh.transformations.rotation_matrix(1.7, [0, 0, 1])[:3, :3]
    other = 0.8 * points @ turn.T + [0.2, -0.1, 0.3]
    assert chamfer(align_similarity(points, other)(points), other) < 1e-3


@pytest.mark.parametrize("n", [32, 50])
def test_voxels_of_a_box_and_a_ball(n):
    inside = voxelize(*box(), np.full(3, -1.0), 2.0, n)
    assert inside.mean() == pytest.approx(1 / 8, rel=0.08)
    ball = trimesh.creation.icosphere(4, 0.8)
    inside = voxelize(np.asarray(ball.vertices), np.asarray(ball.faces), np.full(3, -1.0), 2.0, n)
    centres = (np.indices((n, n, n)) + 0.5) / n * 2 - 1
    radius = np.linalg.norm(centres, axis=0)
    assert inside[radius < 0.78].all()
    assert not inside[radius > 0.81].any()


def test_volume_iou_closed_form_and_with_a_hole():
    # Two unit cubes half a unit apart share 1/2 of each: 0.5 / 1.5.
    a, b = box(), box(offset=(0.5, 0, 0))
    assert volume_iou(a, b) == pytest.approx(1 / 3, abs=0.01)
    assert volume_iou(a, (a[0], a[1][:, ::-1])) == pytest.approx(1.0), "inside out is still solid"
    ball = trimesh.creation.icosphere(3, 0.8)
    whole = np.asarray(ball.vertices), np.asarray(ball.faces)
    holed = whole[0], whole[1][np.asarray(ball.triangles_center)[:, 2] < 0.75]
    assert len(holed[1]) < len(whole[1])
    assert volume_iou(whole, holed) > 0.97


def test_silhouette_iou():
    small, big = (Mesh(*box(size)) for size in (0.5, 0.6))
    cameras = orbit_cameras(0.0, 0.0, height=128, width=128)
    assert silhouette_iou(small, small, cameras) == 1.0
    near = (3.8 - 0.3) / (3.8 - 0.25)  # the front face of the bigger box is nearer
    assert silhouette_iou(small, big, cameras) == pytest.approx((0.5 / 0.6 * near) ** 2, abs=0.03)


def test_uv_health_of_a_square():
    vertices = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    uvs = vertices[:, :2] / 4
    health = uv_health(vertices, faces, uvs, 64)
    assert (health.coverage, health.stretch) == (pytest.approx(0.25), pytest.approx(1.0))
    assert health.overlap == pytest.approx(0.0, abs=1e-9)
    # Twice as wide in the texture: du = 1/2 dv, (4 + 1) / 2 / 2 before the square root.
    assert uv_health(vertices, faces, uvs * [2, 1], 64).stretch == pytest.approx(np.sqrt(1.25))
    doubled = np.concatenate([faces, faces])
    assert uv_health(vertices, doubled, uvs, 64).overlap == pytest.approx(0.5)


def test_health_finds_handles_holes_and_flipped_faces():
    torus = trimesh.creation.torus(0.6, 0.2)
    health = mesh_health(np.asarray(torus.vertices), np.asarray(torus.faces))
    assert (health.watertight, health.manifold, health.winding_consistent) == (True, True, True)
    assert (health.components, health.euler_number) == (1, 0)
    assert health.volume == pytest.approx(torus.volume)
    vertices, faces = box()
    opened = mesh_health(vertices, faces[2:])
    assert (opened.watertight, opened.manifold, opened.open_edges) == (False, True, 4)
    assert "4 open" in opened.summary()
    flipped = faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert not mesh_health(vertices, flipped).winding_consistent
    split = vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)
    assert mesh_health(*split).watertight, "seams are joined by position"
