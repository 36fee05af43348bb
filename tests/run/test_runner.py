"""A session knows its system only by the hooks of `BaseSystem`; stopping it at any step loses nothing."""

import json

import pytest
import tiny_system  # noqa: F401 (registers tiny-system)
import torch

from zero123s.commands.launch import main
from zero123s.errors import ConfigError
from zero123s.run.lock import locked

YAML = """
name: tiny
data_type: tiny-numbers
system_type: tiny-system
use_timestamp: false
trainer: {max_steps: 6, val_check_interval: 2, enable_progress_bar: false}
checkpoint: {every_n_train_steps: 2}
"""


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "tiny.yaml").write_text(YAML)

    def launch(*overrides, mode="--train", out="out"):
        base = ["--config", str(tmp_path / "tiny.yaml"), mode, f"exp_root_dir={tmp_path / out}"]
        return main([*base, *overrides])

    return launch


def record_of(tmp_path, out="out"):
    return json.loads((tmp_path / out / "tiny" / "run" / "run.json").read_text())


def state_of(tmp_path, out="out"):
    return torch.load(tmp_path / out / "tiny" / "run" / "ckpts" / "last.ckpt", weights_only=True)


def test_a_system_without_images_or_export_trains(launch, tmp_path, capsys):
    assert launch() == 0
    record = record_of(tmp_path)
    assert (record["state"], record["step"], record["files"], record["metrics"]) == ("finished", 6, {}, {})
    assert record["peak_memory_gb"] > 0
    assert set(record["stage_seconds"]) == {"train", "validate", "test", "export"}
    names = {p.name for p in (tmp_path / "out" / "tiny" / "run").rglob("*")}
    assert {"config.yaml", "cmd.txt", "env.txt", "git.txt", "run.json", "last.ckpt", "metrics.csv"} <= names
    assert "finished: step 6" in capsys.readouterr().out


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_stop_signal_finishes_the_step(launch, tmp_path, capsys, signal_name, accumulate):
    every = f"trainer.accumulate_grad_batches={accumulate}"
    assert launch(every, out="whole") == 0
    overrides = [every, "system.signal_at=[3]", f"system.signal_name={signal_name}"]
    assert launch(*overrides, out="stopped") == 130
    run = tmp_path / "stopped" / "tiny" / "run"
    again = f"Go on with: python launch.py --config {run / 'config.yaml'} --train resume={run}"
    assert again in capsys.readouterr().err
    record = record_of(tmp_path, "stopped")
    assert (record["state"], record["step"]) == ("interrupted", 4)
    assert launch(every, "resume=last", out="stopped") == 0
    assert record_of(tmp_path, "stopped")["state"] == "finished"
    whole, resumed = (state_of(tmp_path, out) for out in ("whole", "stopped"))
    assert torch.equal(whole["state_dict"]["walker"], resumed["state_dict"]["walker"])
    moments = [s["optimizer_states"][0]["state"][0]["exp_avg_sq"] for s in (whole, resumed)]
    assert torch.equal(*moments)


def test_a_failure_is_written_down_and_raised(launch, tmp_path):
    with pytest.raises(ArithmeticError, match="fell over"):
        launch("system.fail_at=3")
    record = record_of(tmp_path)
    assert (record["state"], record["error"]) == ("failed", "ArithmeticError: the walker fell over")


def test_a_run_folder_has_one_writer(launch, tmp_path, capsys):
    folder = tmp_path / "out" / "tiny" / "run"
    with locked(folder):
        assert launch() == 2
        assert "is in use by process" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="in use"), locked(folder):
            pass
    assert launch() == 0


def test_resuming_keeps_what_was_written_down(launch, tmp_path):
    assert launch() == 0
    assert launch("resume=last", "trainer.max_steps=8") == 0
    folder = tmp_path / "out" / "tiny" / "run"
    assert "max_steps: 6" in (folder / "config.before1.yaml").read_text()
    assert "max_steps: 8" in (folder / "config.yaml").read_text()
    assert (folder / "cmd.txt").read_text().count("\n") == 2
    assert record_of(tmp_path)["step"] == 8
    assert launch("resume=last", mode="--export") == 0
    assert record_of(tmp_path)["state"] == "finished"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["system.size=3"], "belongs to another configuration"),
        (["--gpu", "zero"], "expected an index"),
        (["system.seconds_per_step=-1"], "system.seconds_per_step: -1 is out of range, expected >= 0"),
        (["system.signal_name=SIGKIL"], "is not SIGINT or SIGTERM. Did you mean 'SIGINT'?"),
        (["trainer.max_time=soon"], "is not DD:HH:MM:SS"),
        (["trainer.strategy=magic"], "trainer: "),
        (["checkpoint.every_n_steps=3"], "Did you mean 'checkpoint.every_n_train_steps'? (set in command line)"),
        (["imports=[no_such_package]"], "there is no package 'no_such_package'"),
    ],
)
def test_mistakes_are_reported_before_anything_changes(launch, tmp_path, capsys, overrides, message):
    assert launch() == 0
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.yaml")}
    capsys.readouterr()
    assert launch("resume=last", *overrides) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.yaml")} == before


def test_gpu_without_cuda_goes_on_on_the_cpu(launch, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert launch("--gpu", "0") == 0
    assert "CUDA is not available here; running on the CPU" in capsys.readouterr().err
