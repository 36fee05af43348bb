import numpy as np
import pytest
import torch

from zero123s.mesh.scene_mesh import FRUSTUM_RADIUS, Paint, normalize
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.scenes.primitives import Builder, box, ellipsoid
from zero123s.scenes.procedural import KINDS, generate, named
from zero123s.scenes.render import Light, render_views

WHITE_LIGHT = Light(ambient=1.0, sky=0.0, diffuse=0.0)


BLUE = Paint((0.2, 0.4, 0.6))


def sphere(paint=BLUE, radius=0.5):
    builder = Builder()
    builder.add(ellipsoid(radius, radius, radius, 128, 256), paint)
    return builder.build("sphere")


def test_a_sphere_has_closed_form_depth_and_normals():
    cameras = orbit_cameras(torch.tensor([20.0, -50.0]), torch.tensor([70.0, 200.0]), height=64, width=64)
    renders = render_views(sphere(), cameras, WHITE_LIGHT, supersample=1, geometry=True)
    rays = generate_rays(cameras)
    b = (rays.rays_o * rays.rays_d).sum(-1)
    root = b**2 - (rays.rays_o.square().sum(-1) - 0.25)
    inside = (root > 0.01).numpy()  # away from the silhouette, where facets matter
    depth = (-b - root.clamp_min(0).sqrt()).numpy()
    assert renders.depth is not None
    assert renders.normal is not None
    assert renders.depth[inside] == pytest.approx(depth[inside], abs=5e-4)
    normal = (rays.rays_o.numpy() + rays.rays_d.numpy() * depth[..., None]) / 0.5
    assert np.abs(renders.normal - normal)[inside].max() < 0.01
    assert (renders.rgba[..., 3] > 0).mean() == pytest.approx((root > 0).float().mean().item(), rel=0.01)
    assert renders.rgba[inside][:, :3] == pytest.approx(np.tile([0.2, 0.4, 0.6], (inside.sum(), 1)), abs=1e-5)


def test_azimuth_zero_shows_the_front():
    builder = Builder()
    for at, color in (((0.3, 0, 0), (1, 0, 0)), ((0, 0.3, 0), (0, 1, 0)), ((0, 0, 0.3), (0, 0, 1))):
        builder.add(box(0.3, 0.3, 0.3), Paint(color), at=at)
    cameras = orbit_cameras(torch.tensor([0.0, 0.0, 89.0]), torch.tensor([0.0, 90.0, 0.0]), height=33, width=33)
    centre = render_views(builder.build("axes"), cameras, WHITE_LIGHT).rgba[:, 16, 16, :3]
    assert centre == pytest.approx(np.eye(3), abs=1e-4)


@pytest.mark.parametrize(
    ("paint", "expected"),
    [
        (Paint((0, 0, 0), (1, 1, 1), "stripes", 2.0, (0, 0, 1)), lambda p: (p[..., 2] * 2 % 1 < 0.5) * 1.0),
        (Paint((0, 0, 0), (1, 1, 1), "gradient", 1.0, (0, 1, 0)), lambda p: np.clip(0.5 + p[..., 1], 0, 1)),
        (Paint((0, 0, 0), (1, 1, 1), "checks", 3.0), lambda p: np.floor(p * 3 + 1e-4).sum(-1) % 2),
        (Paint((0, 0, 0), (1, 1, 1), "dots", 3.0), lambda p: (((p * 3 % 1 - 0.5) ** 2).sum(-1) < 0.12) * 1.0),
    ],
)
def test_patterns_are_evaluated_at_the_hit(paint, expected):
    cameras = orbit_cameras(15.0, 25.0, height=64, width=64)
    renders = render_views(sphere(paint), cameras, WHITE_LIGHT, supersample=1, geometry=True)
    rays = generate_rays(cameras)
    assert renders.depth is not None
    points = rays.rays_o.numpy() + rays.rays_d.numpy() * renders.depth[..., None]
    hit = renders.rgba[..., 3] > 0
    same = np.abs(renders.rgba[..., 0] - expected(points))[hit] < 0.02
    assert same.mean() > 0.97  # the rest lies within a facet's width of an edge of the pattern


def test_light_brightens_only_its_side():
    light = Light(direction=(0.0, 1.0, 0.0), ambient=0.5, sky=0.0, diffuse=0.5)
    right, left = render_views(sphere(Paint((1, 1, 1))), orbit_cameras(0.0, torch.tensor([90.0, 270.0])), light).rgba
    assert right[32, 32, 0] == pytest.approx(1.0, abs=1e-2)
    assert left[32, 32, 0] == pytest.approx(0.5, abs=1e-2)


def test_the_rectangle_spares_rays_and_changes_nothing():
    scene = normalize(sphere(), 0.3)
    small = render_views(scene, orbit_cameras(10.0, 10.0, height=64, width=64)).rgba
    inside = render_views(scene, orbit_cameras(10.0, 10.0, distance=0.1, height=16, width=16)).rgba
    assert small[0, :16, :, 3].max() == 0
    assert inside[..., 3].min() == 1  # the camera stands inside: no rectangle bounds the projection


def test_straight_alpha_does_not_darken_edges():
    rgba = render_views(sphere(Paint((1, 1, 1))), orbit_cameras(0.0, 0.0), WHITE_LIGHT, supersample=4).rgba[0]
    edge = (rgba[..., 3] > 0) & (rgba[..., 3] < 1)
    assert edge.sum() > 50
    assert rgba[edge][:, :3].min() == pytest.approx(1.0)


def test_every_kind_has_front_frame_and_mirror_plane():
    asymmetric = {"assembly", "shelf", "mug", "tower", "machine", "table", "vase", "tree", "toy_ring", "bowl", "tool"}
    for kind in sorted({k.__name__ for k in KINDS} - asymmetric):
        scene = named(kind, 3)
        radius = np.linalg.norm(scene.vertices, axis=-1).max()
        assert radius < FRUSTUM_RADIUS, kind
        alpha = render_views(scene, orbit_cameras(10.0, torch.tensor([40.0, -40.0]))).rgba[..., 3]
        overlap = np.minimum(alpha[0], alpha[1, :, ::-1]).sum() / np.maximum(alpha[0], alpha[1, :, ::-1]).sum()
        assert overlap > 0.8, f"{kind}: mirror views overlap only {overlap:.2f}"


def test_generated_objects_are_many_and_repeatable():
    names = {generate(seed).name for seed in range(60)}
    assert len(names) > 20
    assert np.array_equal(generate(5).vertices, generate(5).vertices)
