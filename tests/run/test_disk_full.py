"""A full disk during checkpoint, image, video, log or export: one sentence, exit code 2, no half file taken for whole."""

import errno
import json
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tiny_system  # noqa: F401 (registers tiny-system)
from full_disk import files_no_larger_than

from zero123s.callbacks.checkpoints import AtomicCheckpointIO
from zero123s.commands.launch import main
from zero123s.errors import OutputError
from zero123s.system.visualize import save_strip, save_video

FRAMES = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(20)]


@pytest.fixture
def launch(tmp_path):
    yaml = """
name: tiny
data_type: tiny-numbers
system_type: tiny-system
use_timestamp: false
trainer: {max_steps: 4, val_check_interval: 0, enable_progress_bar: false}
checkpoint: {every_n_train_steps: 2}
"""
    (tmp_path / "tiny.yaml").write_text(yaml)
    return lambda *overrides: main(
        ["--config", str(tmp_path / "tiny.yaml"), "--train", f"exp_root_dir={tmp_path}", *overrides]
    )


def test_a_full_disk_during_a_checkpoint(launch, tmp_path, capsys):
    assert launch("system.size=20000") == 0
    folder = tmp_path / "tiny" / "run"
    good = (folder / "ckpts" / "last.ckpt").read_bytes()
    capsys.readouterr()
    with files_no_larger_than(100_000):
        assert launch("system.size=20000", "trainer.max_steps=8", "resume=last") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: '")
    assert "the disk is full or a quota is reached" in error
    assert (folder / "ckpts" / "last.ckpt").read_bytes() == good
    assert not list(folder.rglob("*.part"))
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    assert launch("system.size=20000", "trainer.max_steps=8", "resume=last") == 0, "space was made; nothing was lost"
    assert AtomicCheckpointIO().load_checkpoint(folder / "ckpts" / "last.ckpt")["global_step"] == 8


@pytest.mark.parametrize("write", [save_strip, save_video])
def test_a_full_disk_during_an_image_or_video(tmp_path, write):
    path = tmp_path / "save" / ("a.png" if write is save_strip else "a.mp4")
    with files_no_larger_than(2_000), pytest.raises(OutputError, match="cannot be written"):
        write(path, FRAMES)
    assert not list(path.parent.iterdir())
    write(path, FRAMES)
    assert len(imageio.imread(path)) == (64 * 20 if write is save_strip else 20)


def test_a_full_disk_during_the_logs(launch, tmp_path, capsys, monkeypatch):
    from pytorch_lightning.loggers import CSVLogger

    def fail(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.csv")

    monkeypatch.setattr(CSVLogger, "log_metrics", fail)
    assert launch() == 2
    assert "error: 'metrics.csv' cannot be written: the disk is full" in capsys.readouterr().err


def test_an_output_folder_that_is_not_writable(launch, tmp_path, capsys):
    (tmp_path / "tiny").write_text("a file where the folder should be")
    assert launch() == 2
    assert "cannot be written" in capsys.readouterr().err.splitlines()[-1]


def test_losing_the_folder_while_training_is_a_sentence(launch, tmp_path, capsys, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert launch() == 2
    assert "no permission to write there" in capsys.readouterr().err.splitlines()[-1]
