"""Checkpoints are whole or not there, and a damaged one is never taken for a good one."""

import errno
import random

import numpy as np
import pytest
import torch
from full_disk import files_no_larger_than

from zero123s.callbacks.checkpoints import AtomicCheckpointIO, random_states, restore_random_states
from zero123s.errors import CheckpointError, OutputError

STATE = {"state_dict": {"w": torch.arange(50_000, dtype=torch.float32)}, "global_step": 7}


def test_what_was_written_is_read(tmp_path):
    AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / "a.ckpt")
    read = AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(read["state_dict"]["w"], STATE["state_dict"]["w"])


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    good = path.read_bytes()
    bigger = {"state_dict": {"w": torch.ones(100_000)}, "global_step": 8}
    with files_no_larger_than(100_000), pytest.raises(OutputError, match="the disk is full or a quota is reached"):
        AtomicCheckpointIO().save_checkpoint(bigger, path)
    assert path.read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_failing_write_deep_inside_torch_is_reported(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    good = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for position in generator.sample(range(len(good)), 60):
        damaged = bytearray(good)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read = AtomicCheckpointIO().load_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:  # the byte was padding between records
            assert torch.equal(read["state_dict"]["w"], STATE["state_dict"]["w"])
            assert read["global_step"] == 7
    assert refused > 50


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_cut_file_is_refused(tmp_path, keep):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(CheckpointError, match="cut short"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_foreign_files_are_refused_without_running_their_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Payload(), "global_step": 1}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"belongs in system\.guidance\.checkpoint"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "model.ckpt")


def test_random_states_return_every_generator(tmp_path):
    states = random_states()
    torch.save(states, tmp_path / "states")
    draw = lambda: (random.random(), random.gauss(), np.random.rand(), np.random.randn(), torch.rand(3))  # noqa: E731
    first = draw()
    restore_random_states(torch.load(tmp_path / "states", weights_only=True))
    second = draw()
    assert first[:4] == second[:4]
    assert torch.equal(first[4], second[4])
