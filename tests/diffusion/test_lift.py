"""The pose lift's geometry against the project's own cameras, and its bodies against closed forms."""

import copy
import math

import pytest
import torch

from zero123s.diffusion.conditioning import pose_vector
from zero123s.diffusion.lift import DENSITY_GAIN, DENSITY_SHIFT, PoseLift, camera_frame
from zero123s.ops.cameras import generate_rays, orbit_cameras

TANGENT = math.tan(math.radians(10))


@pytest.fixture(scope="module")
def lift():
    torch.manual_seed(0)
    return PoseLift(latent_size=8, widths=(32, 32), volume_channels=4, features=4, n_samples=32, out_channels=8)


def pose_of(elevation, azimuth, cond_elevation, cond_azimuth=0.0):
    given = (elevation, azimuth, 3.8, cond_elevation, cond_azimuth, 3.8)
    return pose_vector("stable-zero123", *(torch.tensor([float(v)]) for v in given))


def test_frames_are_those_of_the_orbit_cameras():
    cameras = orbit_cameras(torch.tensor([20.0, -5.0]), torch.tensor([70.0, 200.0]), 3.8, 20.0, 4, 4)
    polar, azimuth = torch.deg2rad(90 - cameras.elevation_deg), torch.deg2rad(cameras.azimuth_deg)
    centre, frame = camera_frame(polar, azimuth, 3.8)
    torch.testing.assert_close(centre, cameras.positions, atol=1e-5, rtol=0)
    torch.testing.assert_close(frame, cameras.c2w[:, :3, :3], atol=1e-6, rtol=0)


def test_the_input_view_sees_its_own_pixels(lift):
    points = lift._points(pose_of(12.0, 33.0, 12.0, 33.0), 16).reshape(16, 16, -1, 3)
    centres = (torch.arange(16) + 0.5) / 8 - 1
    torch.testing.assert_close(points[..., 0], centres[None, :, None].expand(16, -1, 32), atol=1e-5, rtol=0)
    torch.testing.assert_close(points[..., 1], centres[:, None, None].expand(-1, 16, 32), atol=1e-5, rtol=0)
    steps = (torch.arange(32) + 0.5) / 16 - 1
    torch.testing.assert_close(points[3, 5, :, 2], steps, atol=1e-5, rtol=0)


def test_samples_lie_on_the_target_cameras_rays(lift):
    points = lift._points(pose_of(40.0, 120.0, 10.0, 30.0), 16)[0]
    # out of the volume's coordinates into the world, by the conditioning camera of the project
    given = orbit_cameras(10.0, 30.0, 3.8, 20.0, 16, 16)
    along = 3.8 + lift.bound * points[:, 2]
    local = torch.stack([points[:, 0] * TANGENT * along, -points[:, 1] * TANGENT * along, -along], dim=-1)
    world = local @ given.c2w[0, :3, :3].T + given.positions
    rays = generate_rays(orbit_cameras(40.0, 120.0, 3.8, 20.0, 16, 16))
    origin, direction = rays.rays_o.reshape(-1, 1, 3), rays.rays_d.reshape(-1, 1, 3)
    offset = world.reshape(256, -1, 3) - origin
    off_ray = torch.linalg.cross(offset, direction.expand_as(offset)).norm(dim=-1)
    assert off_ray.max() < 1e-4


@pytest.mark.parametrize(("elevation", "azimuth"), [(0.0, 0.0), (0.0, 90.0), (60.0, -130.0)])
def test_a_ball_in_the_volume_projects_in_place(lift, elevation, azimuth):
    polar = torch.tensor([math.pi / 2])
    axis = (torch.arange(64) + 0.5) / 32 - 1
    world = lift._world(axis, polar)[0]
    centre, radius = torch.tensor([0.2, 0.1, 0.15]), 0.25
    inside = (world - centre).norm(dim=-1) < radius
    volume = torch.zeros(1, 64, 64, 64, 5)
    volume[..., 0] = torch.where(inside, 4.0, -4.0)
    volume[0, inside, 1:4] = torch.tensor([1.0, -1.0, -1.0])
    view = lift.render(volume, pose_of(elevation, azimuth, 0.0)[None])
    camera = orbit_cameras(elevation, azimuth, 3.8, 20.0, 16, 16)
    in_camera = (centre - camera.positions[0]) @ camera.c2w[0, :3, :3]
    column, row = (in_camera[0] / -in_camera[2] / TANGENT + 1) * 8, (-in_camera[1] / -in_camera[2] / TANGENT + 1) * 8
    opacity = view.opacity[0, 0] * (view.opacity[0, 0] > 0.3)  # without the thin fog of what lies outside the volume
    pixels = torch.arange(16) + 0.5
    assert (opacity * pixels).sum() / opacity.sum() == pytest.approx(float(column), abs=0.15)
    assert (opacity * pixels[:, None]).sum() / opacity.sum() == pytest.approx(float(row), abs=0.15)
    area = math.pi * (radius / (TANGENT * -float(in_camera[2])) * 8) ** 2
    assert float(opacity.sum()) == pytest.approx(area, rel=0.12)
    middle = view.features[0, :3, int(row), int(column)]
    torch.testing.assert_close(middle, torch.tensor([1.0, -1.0, -1.0]), atol=0.08, rtol=0)


def test_surrounding_half_precision_does_not_move_rays(lift):
    volume, pose = torch.randn(1, 16, 16, 16, 5), pose_of(25.0, 100.0, 10.0)[None]
    exact = lift.render(volume, pose)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = lift.render(volume, pose)
    torch.testing.assert_close(mixed.features, exact.features)
    torch.testing.assert_close(mixed.opacity, exact.opacity)


def test_a_half_precision_lift_equals_full_precision(lift):
    latents, pose = torch.randn(2, 4, 8, 8), pose_of(5.0, 100.0, 10.0).expand(2, -1)
    half = copy.deepcopy(lift).bfloat16()
    volume = half.volume(latents.bfloat16(), pose[:, 3].bfloat16())
    torch.testing.assert_close(
        half.render(volume, pose[:, None]).features, lift.render(volume.float(), pose[:, None]).features
    )
    assert half(latents.bfloat16(), pose.bfloat16()).dtype == torch.bfloat16


def test_it_starts_nearly_empty_and_white(lift):
    assert math.log1p(math.exp(-DENSITY_SHIFT)) < 0.01, "of what is outside the volume"
    assert DENSITY_GAIN > 1
    view = lift.render(lift.volume(torch.zeros(1, 4, 8, 8), torch.tensor([1.4])), pose_of(0.0, 90.0, 10.0)[None])
    assert view.opacity.mean() < 0.4
    assert view.features[:, :3].mean() > 0.6


def test_forward_gives_maps_and_gradients_reach_every_weight(lift):
    out = lift(torch.randn(2, 4, 8, 8), pose_of(5.0, 100.0, 10.0).expand(2, -1))
    assert out.shape == (2, 8, 8, 8)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lift.parameters())


def test_one_image_is_lifted_once_for_all_views(tiny_v_model):
    model = tiny_v_model
    latents = model.encode_image(torch.rand(1, 3, 32, 32)).detach()
    pose = model.pose_vector([10.0, -5.0, 60.0], [0.0, 90.0, 200.0], 3.8, 10.0, 0.0, 3.8)
    together = model.concat_for(latents, pose)
    kept = model.concat_for(latents, pose, model.lift_volume(latents, pose))
    alone = torch.cat([model.concat_for(latents, pose[i : i + 1]) for i in range(3)])
    each = model.concat_for(latents.expand(3, -1, -1, -1), pose)
    assert together.shape == (3, 12, 8, 8)
    for other in (kept, alone, each):
        torch.testing.assert_close(other, together, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0, 4:], together[1, 4:], atol=1e-4), "the pose changes the maps"


def test_a_mirrored_image_gets_the_mirrored_answer():
    torch.manual_seed(1)
    sizes = {
        "latent_size": 8,
        "widths": (32, 32),
        "volume_channels": 4,
        "features": 4,
        "n_samples": 12,
        "out_channels": 8,
    }
    plain, mirrored = PoseLift(**sizes), PoseLift(**sizes, mirrored=True)
    mirrored.load_state_dict(plain.state_dict(), strict=False)  # all but the mirror, which starts as the flip
    latents, pose = torch.randn(2, 4, 8, 8), torch.cat([pose_of(30.0, 50.0, 10.0), pose_of(5.0, -120.0, 0.0)])
    other_way = pose * torch.tensor([1.0, -1.0, 1.0, 1.0])
    views = [
        lift.render(lift.volume(x, p[:, 3]), p[:, None])
        for lift in (plain, mirrored)
        for x, p in ((latents, pose), (latents.flip(-1), other_way))
    ]
    assert (views[0].features - views[1].features.flip(-1)).abs().max() > 0.01, "which the network alone does not give"
    torch.testing.assert_close(views[2].features, views[3].features.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(views[2].opacity, views[3].opacity.flip(-1), atol=1e-5, rtol=0)


def test_the_mirrored_volume_is_the_mean_of_both():
    torch.manual_seed(2)
    lift = PoseLift(latent_size=8, widths=(32, 32), volume_channels=4, features=4, mirrored=True)
    latents, polar = torch.randn(1, 4, 8, 8), torch.tensor([1.4])
    own, other = lift._volume(latents, polar), lift._volume(latents.flip(-1), polar)
    torch.testing.assert_close(lift.volume(latents, polar), (own + other.flip(3)) / 2)
