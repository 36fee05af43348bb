"""A cap on memory, and disk space looked at before a run needs it."""

import shutil
from pathlib import Path

import pytest
import tiny_system
import torch

from zero123s.errors import ConfigError
from zero123s.run.memory_cap import checkpoint_bytes, data_bytes, memory_capped

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the cap needs Linux")


@pytest.fixture
def launch(tmp_path):
    return lambda *words: tiny_system.launch(tmp_path, *words)


@linux
def test_what_goes_beyond_the_cap_fails_at_once_and_only_within_the_block():
    used = data_bytes()[1] / 1e9
    with memory_capped(used + 0.2, on_gpu=False):
        torch.zeros(10_000_000)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.zeros(100_000_000)
    torch.zeros(100_000_000)
    with memory_capped(None, on_gpu=False):
        torch.zeros(100_000_000)
    with pytest.raises(ConfigError, match="program and libraries alone hold"), memory_capped(used / 2, on_gpu=False):
        pass


def test_on_a_gpu_the_cap_is_a_share_of_it(monkeypatch):
    shares = []
    properties = type("Properties", (), {"total_memory": 40e9})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    with memory_capped(10.0, on_gpu=True):
        pass
    assert shares == [0.25, 1.0]
    with pytest.raises(ConfigError, match=r"max_memory_gb=80: the GPU has 40\.0 GB"), memory_capped(80.0, on_gpu=True):
        pass


@linux
def test_a_run_that_cannot_fit_under_its_cap_is_one_sentence(launch, capsys):
    used = data_bytes()[1] / 1e9
    assert launch("system.size=40000000", f"trainer.max_memory_gb={used + 0.35}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "emory ran out" in error
    assert launch("system.size=3") == 0, "the cap is gone"


def test_a_disk_without_room_for_the_run_is_told_before_it_begins(launch, tmp_path, monkeypatch, capsys):
    usage = type("Usage", (), {"free": 130_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert launch("system.size=1000000") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "has 0.13 GB of free space and the run needs about 0.14 GB (3 checkpoints of 0.01 GB" in error
    assert not (tmp_path / "tiny").exists()
    assert launch("system.size=100") == 0


def test_checkpoints_are_about_as_large_as_foreseen(launch, tmp_path):
    assert launch("system.size=100000") == 0
    size = (tmp_path / "tiny" / "run" / "ckpts" / "last.ckpt").stat().st_size
    foreseen = checkpoint_bytes(torch.nn.Linear(99_999, 1))
    assert foreseen == pytest.approx(size, rel=0.05)
