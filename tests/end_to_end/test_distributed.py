"""Several processes that train together: the same curve as one with the same global batch, one folder, one voice.

One test starts the second process as a user's command does; the others are two forked processes with torchrun's
variables, which import nothing anew.
"""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import forked
import pytest
import torch

from zero123s.callbacks.checkpoints import AtomicCheckpointIO
from zero123s.commands.launch import main

REPOSITORY = Path(__file__).parents[2]
TWO = ("trainer.strategy=ddp", "trainer.devices=2", "data.batch_size=2")


@pytest.fixture(scope="module")
def job(rendered_views, tiny_autoencoder, tmp_path_factory):
    """Return the words of a small training and its run folder, by its tag."""
    root = tmp_path_factory.mktemp("distributed")

    def job(tag: str, *overrides: str) -> tuple[list[str], Path]:
        argv = [
            "--config", str(REPOSITORY / "configs/train-small-zero123.yaml"),
            "--train", f"exp_root_dir={root}", "use_timestamp=false", f"tag={tag}", "threads=1",
            "trainer.accelerator=cpu", f"data.root={rendered_views}", "data.batch_size=4", "data.held_out=4",
            "data.n_targets=2", f"system.model={REPOSITORY / 'tests/helpers/tiny_lifted.yaml'}",
            f"system.autoencoder={tiny_autoencoder}", "system.ema_decay=0.5", "system.n_validation=4",
            "system.n_samples=2", "system.sample_steps=2", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1",
            "trainer.enable_progress_bar=false", "checkpoint.every_n_train_steps=2", *overrides,
        ]  # fmt: skip
        return argv, root / "train-small-zero123" / tag

    return job


def launched(argv: list[str]) -> str:
    """Run launch.py, which starts the second process itself; return what it printed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "launch.py"), *argv],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def start_two(argv: list[str], folder: Path, *imports: str) -> list[BaseProcess]:
    """Start two processes that train together; what rank N prints is in rankN.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    return [
        forked.start(argv, folder / f"rank{rank}.log", {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, imports)
        for rank in range(2)
    ]


def finished(two: list[BaseProcess], folder: Path, code: int = 0) -> str:
    """Wait for both; return what they printed."""
    for process in two:
        process.join(300)
    printed = "".join((folder / f"rank{rank}.log").read_text() for rank in range(2))
    assert [process.exitcode for process in two] == [code, code], printed
    return printed


def losses(run: Path) -> list[float]:
    rows = csv.DictReader(next(run.glob("csv_logs/*/metrics.csv")).read_text().splitlines())
    return [float(row["train/denoise"]) for row in rows if row["train/denoise"]]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt")["state_dict"]


def assert_alike(one: Path, two: Path) -> None:
    assert losses(one) == pytest.approx(losses(two), rel=1e-4), "sums are taken in another order"
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    learned = [name for name in first if first[name].is_floating_point()]
    worst = max(float((first[name] - second[name]).abs().max()) for name in learned)
    assert worst < 5e-4, "half of one Adam step of 1e-3"


def test_two_processes_follow_the_curve_of_one(job):
    """Two with half of the batch each, and one with all of it."""
    argv, one = job("one", "trainer.max_steps=3")
    assert main(argv) == 0
    argv, two = job("two", "trainer.max_steps=3", *TWO)
    printed = launched(argv)
    assert_alike(one, two)
    record = json.loads((two / "run.json").read_text())
    assert record["state"] == "finished"
    assert (two / "export" / "zero123.safetensors").is_file()
    assert {p.name for p in two.parent.iterdir() if p.is_dir()} == {"one", "two"}, "one folder"
    assert printed.count("finished: step 3") == 1, "one voice"


def test_the_lift_alone_learns_in_two_processes(job, tmp_path):
    alone = (
        "system.components=[lift]",
        "system.lambda_denoise=0",
        "trainer.precision=bf16-mixed",
        "trainer.max_steps=2",
    )
    argv, run = job("lift", *TWO, *alone)
    finished(start_two(argv, tmp_path), tmp_path)
    assert "lift_psnr" in json.loads((run / "run.json").read_text())["metrics"]


@pytest.mark.parametrize("rank", [0, 1])
def test_out_of_memory_in_one_ends_both(job, rank, tmp_path):
    overrides = ("imports=[short_of_memory]", "system_type=short-finetune-system", f"system.short_rank={rank}")
    argv, _ = job(f"end{rank}", *overrides, "trainer.max_steps=40", *TWO)
    printed = finished(start_two(argv, tmp_path), tmp_path, code=2)
    assert "Memory ran out at step 1 (CUDA out of memory in process" in printed
    assert "lower data.batch_size or data.n_targets" in printed
    assert "Traceback" not in printed


def test_a_signal_to_one_stops_both(job, tmp_path):
    """And they go on together."""
    argv, run = job("stop", "trainer.max_steps=400", "trainer.val_check_interval=0", *TWO)
    two = start_two(argv, tmp_path)
    deadline = time.monotonic() + 240
    while not (run / "ckpts" / "last.ckpt").exists():
        assert two[0].is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(two[0].pid, signal.SIGTERM)
    printed = finished(two, tmp_path, code=130)
    step = int(re.search(r"Stopped at step (\d+)", printed)[1])
    assert step == AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt")["global_step"]
    argv, _ = job("stop", f"trainer.max_steps={step + 2}", "trainer.val_check_interval=0", "resume=last", *TWO)
    finished(start_two(argv, tmp_path), tmp_path)
    assert json.loads((run / "run.json").read_text())["step"] == step + 2


def test_sharded_strategies_are_refused_with_an_alternative(job, capsys):
    argv, _ = job("fsdp", "trainer.strategy=fsdp")
    assert main(argv) == 2
    assert "use ddp" in capsys.readouterr().err
