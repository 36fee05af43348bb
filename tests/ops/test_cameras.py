import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zero123s.ops.cameras import cameras_from_matrices, generate_rays, orbit_cameras, project, sphere_fit_distance


def test_reference_camera_looks_from_plus_x():
    cameras = orbit_cameras(0.0, 0.0, distance=3.8)
    torch.testing.assert_close(cameras.positions, torch.tensor([[3.8, 0.0, 0.0]]))
    right, up, back = cameras.c2w[0, :3, :3].T
    torch.testing.assert_close(right, torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(up, torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(back, torch.tensor([1.0, 0.0, 0.0]))


def test_azimuth_grows_towards_plus_y_and_elevation_upwards():
    torch.testing.assert_close(
        orbit_cameras(0.0, 90.0, 2.0).positions, torch.tensor([[0.0, 2.0, 0.0]]), atol=1e-6, rtol=0
    )
    position = orbit_cameras(30.0, 0.0, 2.0).positions
    torch.testing.assert_close(position, torch.tensor([[math.sqrt(3), 0.0, 1.0]]))


def test_looking_straight_down_continues_the_orbit():
    almost = orbit_cameras(89.9, 0.0).c2w
    torch.testing.assert_close(orbit_cameras(90.0, 0.0).c2w, almost, atol=1e-2, rtol=0)


def test_rays_pass_through_pixel_centres():
    cameras = orbit_cameras(20.0, 50.0, fovy_deg=20.0, height=4, width=6)
    rays = generate_rays(cameras)
    points = (rays.rays_o + 3.0 * rays.rays_d).reshape(-1, 3)
    pixels = project(points, cameras)[0, :, :2].reshape(4, 6, 2)
    y, x = torch.meshgrid(torch.arange(4) + 0.5, torch.arange(6) + 0.5, indexing="ij")
    torch.testing.assert_close(pixels, torch.stack([x, y], dim=-1), atol=1e-4, rtol=0)


def test_field_of_view_is_vertical():
    rays = generate_rays(orbit_cameras(0.0, 0.0, fovy_deg=20.0, height=1000, width=2))
    top, bottom = rays.rays_d[0, 0, 0], rays.rays_d[0, -1, 0]
    angle = math.degrees(math.acos(float(top @ bottom)))
    assert angle == pytest.approx(20.0 * 999 / 1000, abs=0.02)
    assert top[2] > bottom[2]


@given(st.floats(-89, 89), st.floats(-180, 180), st.floats(0.5, 10))
def test_angles_survive_the_way_through_a_matrix(elevation, azimuth, distance):
    cameras = orbit_cameras(elevation, azimuth, distance)
    rotation = cameras.c2w[0, :3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotation) == pytest.approx(1, abs=1e-5)
    back = cameras_from_matrices(cameras.c2w, cameras.fovy_deg, 4, 4)
    assert float(back.elevation_deg) == pytest.approx(elevation, abs=0.05)
    difference = (float(back.azimuth_deg) - azimuth + 180) % 360 - 180
    assert difference == pytest.approx(0, abs=0.05)


def test_sphere_touches_the_frame():
    distance = sphere_fit_distance(0.5, 20.0)
    cameras = orbit_cameras(0.0, 0.0, distance, 20.0, 100, 100)
    rays = generate_rays(cameras).rays_d[0, :, 50]
    closest = (rays * -cameras.positions[0]).sum(-1, keepdim=True) * rays + cameras.positions[0]
    assert closest.norm(dim=-1).max() == pytest.approx(0.5, rel=0.02)
