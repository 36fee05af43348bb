"""Warm starts: a run begins with the guidance's own volume or its own views, resumes exactly, and says what it began with."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from short_refinement import shorten_refinement
from tiny_run import SMALL

from zero123s.commands.launch import main
from zero123s.config.schedule import Schedule
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.lift import DENSITY_SHIFT, PoseLift
from zero123s.errors import ConfigError
from zero123s.guidance.lifted_field import LiftedField, lift_views
from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.structures import ReferenceView
from zero123s.system.warm_start import check_warm_start, warm_start
from zero123s.system.warm_views import WarmViews, restore_warm_views, warm_cameras

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "load" / "images" / "hamburger_rgba.png"


def train(root, *overrides, image=IMAGE):
    places = [f"exp_root_dir={root}", "use_timestamp=false", "threads=1", "export_after_train=false"]
    given = [f"data.image_path={image}", *SMALL, "trainer.val_check_interval=0", *places]
    return main(["--config", str(ROOT / "configs/stable-zero123.yaml"), "--train", *given, *overrides])


def record_of(root):
    (path,) = root.rglob("run.json")
    return json.loads(path.read_text())


def weights_of(root):
    return torch.load(next(root.rglob("last.ckpt")), weights_only=True)["state_dict"]


# ------------------------------------------------------------ the lift's volume


@pytest.fixture(scope="module")
def lift():
    return PoseLift(latent_size=8, widths=(32, 64), volume_channels=4, features=4)


def opacity_of(field, cameras):
    """March straight through a field in 200 steps."""
    rays = generate_rays(cameras)
    along = torch.linspace(-0.9, 0.9, 200) + cameras.distance[0]
    points = rays.rays_o[..., None, :] + along[:, None] * rays.rays_d[..., None, :]
    sigma = field.density(points.reshape(-1, 3)).reshape(points.shape[:-1])
    return 1 - torch.exp(-sigma.sum(-1) * 1.8 / 200)


@pytest.mark.parametrize(("azimuth", "distance"), [(0.0, 3.8), (70.0, 3.8), (-120.0, 1.9)])
def test_the_field_is_the_volume_in_the_world(lift, azimuth, distance):
    volume = torch.zeros(1, 16, 16, 16, 5)
    volume[:, 3:7, 6:10, 9:13, 0] = 0.5 * DENSITY_SHIFT  # a block in front of the middle, to the right
    source = orbit_cameras(20.0, azimuth, distance)
    field = LiftedField(lift, volume, source, 1.0)
    turns = torch.tensor([0.0, 50.0, 180.0])
    rendered = opacity_of(field, orbit_cameras(5.0, azimuth + turns, distance, 20.0, 16, 16))
    pose = torch.stack(
        [torch.full((3,), torch.pi / 180 * 15), *(f(torch.deg2rad(turns)) for f in (torch.sin, torch.cos))], 1
    )
    poses = torch.cat([pose, torch.full((3, 1), torch.pi / 180 * 70)], 1)[None]
    expected = lift.render(volume, poses).opacity[:, 0]
    both = ((rendered > 0.5) & (expected > 0.5)).sum() / ((rendered > 0.5) | (expected > 0.5)).sum()
    assert both > 0.85
    assert ((expected > 0.5).sum((1, 2)) > 5).all()


def test_two_volumes_are_averaged(lift):
    volumes = torch.zeros(2, 16, 16, 16, 5)
    volumes[0, ..., 0], volumes[1, ..., 0] = 0.5 * DENSITY_SHIFT, 0.6 * DENSITY_SHIFT
    cameras = orbit_cameras(0.0, torch.tensor([0.0, 90.0]))
    x = 0.3 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    alone = [LiftedField(lift, volumes[i : i + 1], cameras.select(slice(i, i + 1)), 1.0).density(x) for i in range(2)]
    torch.testing.assert_close(LiftedField(lift, volumes, cameras, 1.0).density(x), (alone[0] + alone[1]) / 2)


@pytest.fixture(scope="module")
def lifted_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("lifted")
    assert train(root, "system.warm_start.type=lift", "system.warm_start.steps=150", "trainer.max_steps=1") == 0
    return root


def test_a_run_begins_with_the_lifted_object(lifted_run):
    warm = record_of(lifted_run)["warm_start"]
    assert warm["type"] == "lift"
    assert warm["opacity_rmse"] < 0.12
    assert warm["color_rmse"] < 0.08


def test_a_surface_starts_from_the_lift(tmp_path, monkeypatch):
    shorten_refinement(monkeypatch, steps=60, resolution=48)
    overrides = ["system.geometry_type=implicit-sdf"]
    grid = ["system.renderer_type=neus-volume-renderer"]
    assert train(tmp_path, *overrides, *grid, "system.warm_start.type=lift", "trainer.max_steps=1") == 0
    assert record_of(tmp_path)["warm_start"]["surface_distance"] < 0.05


@pytest.mark.parametrize("kind", ["auto", "lift"])
def test_a_model_without_lift_borrows_the_bundled_one(kind, tiny_zero123, lifted_run, tmp_path):
    overrides = [f"system.warm_start.type={kind}", "system.warm_start.steps=150", "trainer.max_steps=1"]
    assert train(tmp_path, *tiny_zero123, *overrides) == 0
    warm, own = record_of(tmp_path)["warm_start"], record_of(lifted_run)["warm_start"]
    assert warm["model"] == "small_zero123.safetensors"
    assert "model" not in own
    assert warm["opacity_rmse"] < 0.12
    assert warm["color_rmse"] < 0.08


def test_views_are_lifted_as_the_guidance_lifts_them():
    rgb = torch.rand(2, 96, 96, 3, generator=torch.Generator().manual_seed(0))
    cameras = orbit_cameras(torch.tensor([5.0, 20.0]), torch.tensor([0.0, 90.0]), height=96, width=96)
    views = ReferenceView(cameras, rgb, (rgb[..., :1] > 0.3).float())
    path = str(ROOT / "load/zero123/small_zero123.safetensors")
    guidance = StableZero123Guidance(StableZero123Guidance.Config(checkpoint=path, dtype="fp32"), views)
    x = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    lifted = lift_views(load_zero123(path, dtype="fp32", decoder=False), views, 0.7)
    expected = guidance.scene(0.7)
    assert float(lifted.density(x).max()) > 0
    torch.testing.assert_close(lifted.density(x), expected.density(x), rtol=1e-4, atol=1e-4)


def bare_system(kind, view):
    """Return what a warm start asks a system for before it lifts: a guidance without lift, an image or none."""
    return SimpleNamespace(
        cfg=SimpleNamespace(warm_start=SimpleNamespace(type=kind), guidance_input="rgb"),
        guidance=SimpleNamespace(scene=lambda bound: None),
        exposure=1.0,
        geometry=SimpleNamespace(cfg=SimpleNamespace(radius=1.0)),
        input_view=lambda: view,
        data_source=SimpleNamespace(conditioning_views=lambda: view),
    )


@pytest.mark.parametrize(("size", "message"), [(None, "needs an input image"), ((48, 96), "96x48")])
def test_only_a_square_image_can_be_lifted(size, message):
    view = None
    if size is not None:
        cameras = orbit_cameras(torch.zeros(1), torch.zeros(1), height=size[0], width=size[1])
        view = ReferenceView(cameras, torch.rand(1, *size, 3), torch.ones(1, *size, 1))
    assert warm_start(bare_system("auto", view)) == {}
    with pytest.raises(ConfigError, match=message):
        warm_start(bare_system("lift", view))


@pytest.mark.parametrize("kind", ["auto", "lift"])
def test_an_empty_volume_starts_nothing(kind, lift, caplog):
    camera = orbit_cameras(0.0, 0.0, height=8, width=8)
    photo = ReferenceView(camera, torch.zeros(1, 8, 8, 3), torch.ones(1, 8, 8, 1))
    empty = LiftedField(lift, torch.full((1, 16, 16, 16, 5), -10.0), camera, 1.0)
    system = SimpleNamespace(
        cfg=SimpleNamespace(warm_start=SimpleNamespace(type=kind, steps=1), guidance_input="rgb"),
        guidance=SimpleNamespace(scene=lambda bound: empty),
        exposure=1.0,
        geometry=SimpleNamespace(cfg=SimpleNamespace(radius=1.0), has_sdf=False, has_gaussians=False),
        data_source=SimpleNamespace(photos=lambda: photo),
        input_view=lambda: photo,
        generator=lambda purpose, step: torch.Generator(),
    )
    if kind == "lift":
        with pytest.raises(ConfigError, match="predicts no object"):
            warm_start(system)
    else:
        assert warm_start(system) == {}
        assert "predicts no object" in caplog.text


# ------------------------------------------------------------ sampled views


VIEWS = ["system.warm_start={type: views, n_views: 3, sampling_steps: 2, weight: [0, 300.0, 0.0, 3]}"]


def test_sampled_views_resume_exactly(tiny_zero123, tmp_path):
    overrides = [*tiny_zero123, *VIEWS]
    assert train(tmp_path / "whole", *overrides, "trainer.max_steps=4") == 0
    assert train(tmp_path / "parts", *overrides, "trainer.max_steps=2") == 0
    (folder,) = [p.parent for p in (tmp_path / "parts").rglob("run.json")]
    more = [f"resume={folder}", "trainer.max_steps=4", "trainer.val_check_interval=2"]
    assert train(tmp_path / "parts", *overrides, *more) == 0
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert (folder / "save" / "warm-views.png").is_file()
    assert record_of(tmp_path / "whole")["warm_start"]["n_views"] == 3


def test_view_losses_are_weighted_errors():
    cameras = orbit_cameras(0.0, torch.tensor([0.0]), height=2, width=2)
    views = WarmViews(cameras, torch.zeros(1, 2, 2, 3), torch.tensor([0.25]), Schedule([0, 8.0, 0.0, 4], "w"))

    def render(*_):
        return SimpleNamespace(comp_rgb=torch.full((1, 2, 2, 3), 0.5))

    term = views.loss(render, 2, torch.Generator())["warm_view"]
    assert (float(term.value), term.weight) == (0.25, 0.25 * 4.0)
    assert views.loss(render, 4, torch.Generator()) == {}


def test_views_far_from_the_input_weigh_less():
    cfg = SimpleNamespace(n_views=3, elevations_deg=[0.0], weight=1.0)
    given = orbit_cameras(0.0, torch.tensor([30.0]))
    reference = ReferenceView(given, torch.zeros(1, 64, 64, 3), torch.zeros(1, 64, 64, 1))
    cameras = warm_cameras(cfg, given, 8)
    assert cameras.azimuth_deg.tolist() == [120.0, 210.0, 300.0]
    weights = restore_warm_views(cfg, torch.zeros(3, 8, 8, 3), reference).weights
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.0, 0.5]))


# ------------------------------------------------------------ what does not go together


@pytest.mark.parametrize(
    ("settings", "guided", "said"),
    [
        ({}, False, "lambda_sds is 0"),
        ({"guidance_input": "normal"}, True, "needs colours"),
    ],
)
def test_a_start_from_nothing_is_refused(settings, guided, said):
    section = {"guidance_input": "rgb"} | settings
    with pytest.raises(ConfigError, match=said):
        check_warm_start(SimpleNamespace(warm_start=SimpleNamespace(type="lift"), **section), guided)
