"""Several processes that train together: the same curve as one with the same global batch, one folder, one voice."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from zero123s.callbacks.checkpoints import AtomicCheckpointIO

REPOSITORY = Path(__file__).parents[2]
TWO = ("trainer.strategy=ddp", "trainer.devices=2", "data.batch_size=2")


@pytest.fixture(scope="module")
def start(rendered_views, tiny_autoencoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("distributed")

    def run(tag: str, *words: str) -> tuple[subprocess.Popen[str], Path]:
        command = [
            sys.executable, str(REPOSITORY / "launch.py"), "--config", str(REPOSITORY / "configs/train-small-zero123.yaml"),
            "--train", f"exp_root_dir={root}", "use_timestamp=false", f"tag={tag}", "threads=1",
            "trainer.accelerator=cpu", f"data.root={rendered_views}", "data.batch_size=4", "data.held_out=4",
            "data.n_targets=2", f"system.model={REPOSITORY / 'tests/helpers/tiny_lifted.yaml'}",
            f"system.autoencoder={tiny_autoencoder}", "system.ema_decay=0.5", "system.n_validation=4",
            "system.n_samples=2", "system.sample_steps=2", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1",
            "trainer.enable_progress_bar=false", "checkpoint.every_n_train_steps=2", *words,
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(REPOSITORY / "tests" / "helpers"), environment.get("PYTHONPATH", "")]
        )
        process = subprocess.Popen(
            command, cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return process, root / "train-small-zero123" / tag

    return run


def finished(started: tuple[subprocess.Popen[str], Path], code: int = 0) -> tuple[Path, str]:
    process, run = started
    try:
        said = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    assert process.returncode == code, said
    return run, said


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


def test_two_processes_follow_the_curve_of_one_with_their_global_batch(start):
    one, _ = finished(start("one", "trainer.max_steps=4"))
    two, said = finished(start("two", "trainer.max_steps=4", *TWO))
    assert_alike(one, two)
    record = json.loads((two / "run.json").read_text())
    assert record["state"] == "finished"
    assert (two / "export" / "zero123.safetensors").is_file()
    assert {p.name for p in two.parent.iterdir() if p.is_dir()} == {"one", "two"}, "one folder"
    assert said.count("finished: step 4") == 1, "one voice"


def test_the_lift_alone_learns_in_two_processes(start):
    alone = (
        "system.components=[lift]",
        "system.lambda_denoise=0",
        "trainer.precision=bf16-mixed",
        "trainer.max_steps=2",
    )
    run, _ = finished(start("lift", *TWO, *alone))
    assert "lift_psnr" in json.loads((run / "run.json").read_text())["metrics"]


@pytest.mark.parametrize("rank", [0, 1])
def test_out_of_memory_in_one_of_two_ends_both(start, rank):
    words = ("imports=[short_of_memory]", "system_type=short-finetune-system", f"system.short_rank={rank}")
    _, said = finished(start(f"end{rank}", *words, "trainer.max_steps=40", *TWO), code=2)
    assert "Memory ran out at step 1 (CUDA out of memory in process" in said
    assert "lower data.batch_size or data.n_targets" in said
    assert "Traceback" not in said


def test_a_signal_to_one_of_two_stops_both_and_they_go_on_together(start):
    process, run = start("stop", "trainer.max_steps=400", "trainer.val_check_interval=0", *TWO)
    deadline = time.monotonic() + 240
    while not (run / "ckpts" / "last.ckpt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    _, said = finished((process, run), code=130)
    step = int(re.search(r"Stopped at step (\d+)", said)[1])
    assert step == AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt")["global_step"]
    words = ("trainer.val_check_interval=0", "resume=last", *TWO)
    finished(start("stop", f"trainer.max_steps={step + 2}", *words))
    assert json.loads((run / "run.json").read_text())["step"] == step + 2


def test_sharded_strategies_are_refused_with_what_to_use_instead(start):
    _, said = finished(start("fsdp", "trainer.strategy=fsdp"), code=2)
    assert "use ddp" in said
    assert "Traceback" not in said
