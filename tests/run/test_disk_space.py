"""Disk space is looked at before a run needs it."""

import shutil

import pytest
import tiny_system
import torch

from zero123s.run.disk_space import checkpoint_bytes


@pytest.fixture
def launch(tmp_path):
    return lambda *overrides: tiny_system.launch(tmp_path, *overrides)


def test_a_too_small_disk_is_reported_before_training(launch, tmp_path, monkeypatch, capsys):
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
