"""What befalls a machine: a clock that is set back, a worker that is killed, a folder that cannot be written.

Kills of the job itself are in test_kill.py, full disks in test_disk_full.py.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import tiny_system
import torch
import trimesh

from zero123s.config.experiment import ExperimentConfig
from zero123s.errors import OutputError
from zero123s.mesh.unwrap import UnwrapOptions, unwrap
from zero123s.run.folder import run_path
from zero123s.run.resume import find_checkpoint
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset


@pytest.fixture
def launch(tmp_path):
    return lambda *overrides: tiny_system.launch(tmp_path, *overrides)


# ---------------------------------------------------------------- the clock


def test_last_run_is_found_after_clock_set_back(launch, tmp_path):
    assert launch("tag=first") == 0
    assert launch("tag=second") == 0
    later = time.time() + 86400
    for path in (tmp_path / "tiny" / "first").rglob("*"):
        os.utime(path, (later, later))
    found = find_checkpoint("last", ExperimentConfig(name="tiny", exp_root_dir=str(tmp_path)))
    assert found.parts[-3] == "second"
    assert launch("resume=last", "trainer.max_steps=6") == 0
    state = torch.load(tmp_path / "tiny" / "second" / "ckpts" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 6


def test_runs_of_one_second_get_own_folders(tmp_path):
    experiment = ExperimentConfig(name="n", exp_root_dir=str(tmp_path), tag="a")
    now = datetime(2026, 10, 25, 2, 30, 0)
    names = []
    for _ in range(3):
        path = run_path(experiment, now)
        path.mkdir(parents=True)
        names.append(path.name)
    assert names == ["a@20261025-023000", "a@20261025-023000-2", "a@20261025-023000-3"]


def test_a_jumping_clock_does_not_change_a_run(launch, tmp_path, monkeypatch):
    assert launch("tag=still") == 0
    hours = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1.8e9 - 3600 * next(hours))
    assert launch("tag=jumping") == 0
    weights = [
        torch.load(tmp_path / "tiny" / tag / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]["walker"]
        for tag in ("still", "jumping")
    ]
    assert torch.equal(*weights)


# ---------------------------------------------------------------- workers


def kill_first_child(command):
    """Kill -9 the first child process that appears whose command line holds `command`."""
    while True:
        children = " ".join(p.read_text() for p in Path("/proc/self/task").glob("*/children")).split()
        for child in children:
            if command in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
                return
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process in /proc")
def test_a_killed_rendering_process_loses_no_shard(tmp_path):
    settings = RenderSettings(views=2, size=16, supersample=1, shard_size=2)
    objects = procedural_objects(0, 4)
    killer = threading.Thread(target=kill_first_child, args=(b"spawn_main",), daemon=True)
    killer.start()
    with pytest.raises(OutputError, match="A rendering process was killed"):
        render_dataset(objects, tmp_path / "killed", settings, processes=2)
    killer.join(10)
    again = render_dataset(objects, tmp_path / "killed", settings)
    undisturbed = render_dataset(objects, tmp_path / "whole", settings)
    assert again.read_text() == undisturbed.read_text()
    assert not list((tmp_path / "killed").glob("*.partial"))


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process in /proc")
def test_a_killed_unwrapping_falls_back_to_triangles():
    ball = trimesh.creation.icosphere(3)
    killer = threading.Thread(target=kill_first_child, args=(b"xatlas_worker",), daemon=True)
    killer.start()
    result = unwrap(np.asarray(ball.vertices), np.asarray(ball.faces), UnwrapOptions(texture_size=256))
    killer.join(10)
    assert result.method == "triangles"
    assert "exit code -9" in result.reason
    assert len(result.faces) == len(ball.faces)


# ---------------------------------------------------------------- folders


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting needs root on Linux")
@pytest.mark.parametrize("options", ["ro", "size=1m"])
def test_read_only_and_tiny_disks_are_one_sentence(launch, tmp_path, capsys, options):
    """Real mounts, where the system lets us."""
    place = tmp_path / "mounted"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        assert launch(f"exp_root_dir={place}") == 2
    finally:
        subprocess.run(["umount", str(place)], check=False)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert ("no permission to write there" if options == "ro" else "GB of free space") in error


def test_a_folder_without_permission_is_one_sentence(launch, tmp_path, capsys):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "closed").mkdir(mode=0o555)
    assert launch(f"exp_root_dir={tmp_path / 'closed'}") == 2
    assert "no permission to write there" in capsys.readouterr().err.splitlines()[-1]
    assert Path(tmp_path / "closed").is_dir()
