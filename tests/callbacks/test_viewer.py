"""The live viewer without a browser: cameras, images, its share of the time, and that training does not notice it."""

import logging
import sys

import numpy as np
import pytest
import torch

from zero123s.callbacks.viewer import Viewer, require_viewer
from zero123s.callbacks.viewer_images import (
    BACKGROUND_DEPTH,
    KINDS,
    Budget,
    camera_at,
    pose_of,
    reference_thumbnail,
    render_view,
)
from zero123s.commands.launch import main
from zero123s.errors import ConfigError, MissingDependencyError
from zero123s.ops.cameras import orbit_cameras
from zero123s.run.plan import plan_run
from zero123s.run.runner import Runner

TINY = [
    "system.loss.lambda_sds=0",
    "data.height=16",
    "data.width=16",
    "data.resolution_milestones=[]",
    "data.random_camera.eval_height=16",
    "data.random_camera.eval_width=16",
    "data.random_camera.n_val_views=1",
    "data.random_camera.n_test_views=2",
    "system.geometry.pos_encoding_config.n_levels=2",
    "trainer.max_steps=4",
    "trainer.enable_progress_bar=false",
    "export_after_train=false",
    "use_timestamp=false",
    "threads=1",
]


def plan_of(tmp_path, *overrides):
    return plan_run("configs/stable-zero123.yaml", [*TINY, f"exp_root_dir={tmp_path}", *overrides], "cpu")[1]


def test_a_viewers_pose_is_our_camera():
    # Standing on +x and looking at the origin, x right is +y, y down is -z, z forward is -x: a quarter turn thrice.
    camera = camera_at(np.array([0.5, -0.5, -0.5, 0.5]), np.array([3.8, 0.0, 0.0]), 20.0, 2.0, 10)
    ours = orbit_cameras(0.0, 0.0, 3.8, 20.0, 10, 20)
    torch.testing.assert_close(camera.c2w.abs(), ours.c2w.abs(), atol=1e-6, rtol=0)
    assert (camera.height, camera.width) == (10, 20)


@pytest.mark.parametrize(("elevation", "azimuth"), [(0, 0), (5, 30), (-10, 180), (80, -170), (90, 0), (45, 90)])
def test_poses_go_forth_and_back(elevation, azimuth):
    ours = orbit_cameras(float(elevation), float(azimuth), 2.5, 30.0, 8, 8)
    wxyz, position = pose_of(ours, 0)
    assert np.linalg.norm(wxyz) == pytest.approx(1.0)
    back = camera_at(3.0 * wxyz, position, 30.0, 1.0, 8)
    torch.testing.assert_close(back.c2w, ours.c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.distance, ours.distance)


def test_the_budget_keeps_its_share_of_the_time():
    now = [0.0]
    budget = Budget(0.25, lambda: now[0])
    drawn = 0.0
    for _ in range(10_000):
        if budget.is_free:
            now[0] += 0.3  # an image
            drawn += 0.3
            budget.spent(0.3)
        now[0] += 0.01  # a training step
    assert drawn / now[0] == pytest.approx(0.25, abs=0.01)


@pytest.fixture
def system(tmp_path):
    built = plan_of(tmp_path).build()
    built.renderer.update(built.field(), 0, built.generator("occupancy", 0))
    return built


@pytest.mark.parametrize("kind", KINDS)
def test_images_show_the_field_and_disturb_nothing(system, kind):
    system.train()
    before = torch.random.get_rng_state()
    weights = [p.clone() for p in system.parameters()]
    wide = orbit_cameras(5.0, 0.0, 3.8, 30.0, 24, 36)
    image, depth = render_view(system, wide, kind)
    assert image.shape == (24, 36, 3)
    assert image.std() > 0.02  # the blob that training starts from
    middle, corner = depth[12, 18], depth[0, 0]
    assert 3.0 < middle < 3.8  # its front, between the camera and the origin
    assert corner == pytest.approx(BACKGROUND_DEPTH)
    assert system.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights, system.parameters(), strict=True))
    if kind == "opacity":
        assert image[12, 18, 0] > 0.9
        assert image[0, 0, 0] < 0.1


def test_reference_images_are_small_and_on_white(system):
    image = reference_thumbnail(system.data_source.photos(), 0, 32)
    assert image.shape == (32, 32, 3)
    np.testing.assert_allclose(image[0, 0], 1.0)


def trained(tmp_path, viewer=None, *overrides):
    plan = plan_of(tmp_path, *overrides)
    runner = Runner(plan, tmp_path / "run", None, run_callbacks=[viewer] if viewer else [])
    assert runner.run("train") == "finished"
    return [p.detach().clone() for p in runner.system.parameters()]


class Looking(Viewer):
    """Draws after every step, as for a camera that always moves, without a browser."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.sent = []

    def on_stage(self, stage):
        """As a watcher."""

    def _open(self, system):
        self.server = self

    def stop(self):
        self.sent.append("stopped")

    def _show_progress(self, trainer):
        """Nobody reads."""

    def _draw(self, system, step, batch):
        self.sent.append(render_view(system, orbit_cameras(5.0, 30.0 * step, 3.8, 20.0, 16, 16), "normal")[0])


def test_an_open_viewer_does_not_change_the_weights(tmp_path):
    looking = Looking(plan_of(tmp_path).experiment.viewer)
    watched = trained(tmp_path / "a", looking)
    alone = trained(tmp_path / "b")
    assert len(looking.sent) == 4 + 1
    assert looking.sent[-1] == "stopped"
    assert not np.array_equal(looking.sent[0], looking.sent[1])
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))


@pytest.mark.parametrize("method", ["_open", "_show_progress", "_draw"])
def test_training_survives_a_broken_viewer(tmp_path, caplog, method):
    looking = Looking(plan_of(tmp_path).experiment.viewer)

    def breaks(*args):
        raise ConnectionResetError("the browser is gone")

    setattr(looking, method, breaks)
    with caplog.at_level(logging.WARNING, "zero123s"):
        assert trained(tmp_path / "a", looking)
    (logged,) = [r for r in caplog.records if "viewer is closed" in r.message]
    assert "ConnectionResetError: the browser is gone" in logged.message
    assert looking.server is None


def test_missing_viser_is_reported_before_anything_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "viser", None)
    overrides = [
        "--config",
        "configs/stable-zero123.yaml",
        "--train",
        "--viewer",
        *TINY,
        f"exp_root_dir={tmp_path}/out",
    ]
    assert main(overrides) == 2
    assert "pip install -e '.[viewer]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(MissingDependencyError):
        require_viewer(plan_of(tmp_path, "viewer.enabled=true"))


def test_a_system_without_a_field_has_no_viewer():
    plan = plan_run("configs/train-autoencoder.yaml", ["viewer.enabled=true", "data.root=load"], "auto")[1]
    with pytest.raises(ConfigError, match="no radiance field"):
        require_viewer(plan)


def test_the_flags_mean_the_settings(tmp_path, capsys):
    pytest.importorskip("viser", reason="viser is not installed: pip install -e '.[viewer]'")
    overrides = ["--config", "configs/stable-zero123.yaml", "--train", "--dry-run", *TINY]
    assert main([*overrides, "--viewer-port", "7123"]) == 0
    logged = capsys.readouterr().out
    assert "enabled: true" in logged
    assert "port: 7123" in logged
    assert main([*overrides, "--viewer-port", "x"]) == 2
    assert "viewer.port" in capsys.readouterr().err
