"""What people get wrong: one sentence with the thing and the file in it, exit code 2, nothing written."""

from pathlib import Path

import pytest
import torch

from zero123s.commands.launch import main

REPOSITORY = Path(__file__).parents[2]
IMAGE = REPOSITORY / "load" / "images" / "hamburger_rgba.png"


@pytest.fixture
def launch(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    torch.save({"state_dict": {"w": torch.zeros(2)}}, tmp_path / "foreign.ckpt")

    def launch(*overrides, config=REPOSITORY / "configs" / "stable-zero123.yaml", mode="--train"):
        small = ["system.geometry.pos_encoding_config.log2_hashmap_size=12", f"data.image_path={IMAGE}"]
        before = sorted(tmp_path.rglob("*"))
        code = main(["--config", str(config), mode, *small, *overrides])
        captured = capsys.readouterr()
        assert sorted(tmp_path.rglob("*")) == before, "nothing was written"
        lines = captured.err.strip().splitlines()
        assert "Traceback" not in captured.err
        assert lines[-1].startswith("error: ")
        assert sum(line.startswith("error: ") for line in lines) == 1
        return code, lines[-1]

    return launch


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["system.guidance.checkpoint=missing.ckpt"], "'missing.ckpt' does not exist: get Stable Zero123 with"),
        (["system.guidance.checkpoint=zero123-xl.ckpt"], "get it with `zero123s download zero123-xl`"),
        (["system.guidance.checkpoint=garbage.ckpt"], "garbage.ckpt"),
        (["system.guidance.checkpoint=foreign.ckpt"], "foreign.ckpt"),
        (["data.image_path=folder", "system.loss.lambda_sds=0"], "'folder' is a folder"),
        (["data.image_path=nothing.png", "system.loss.lambda_sds=0"], "nothing.png"),
        (["data.image_path=garbage.ckpt", "system.loss.lambda_sds=0"], "garbage.ckpt"),
        (["resume=garbage.ckpt", "system.loss.lambda_sds=0"], "garbage.ckpt"),
        (["resume=foreign.ckpt", "system.loss.lambda_sds=0"], "not a readable checkpoint of a run"),
        (
            ["data.random_camera.elevation_range=[80,-10]", "system.loss.lambda_sds=0"],
            "data.random_camera.elevation_range",
        ),
        (["data.resolution_milestones=[300,200]", "system.loss.lambda_sds=0"], "data.resolution_milestones"),
        (["system.guidance.min_step_percent=[1.0,2.0]"], "system.guidance.min_step_percent"),
        (["system.guidance.max_step_percent=2"], "system.guidance.max_step_percent: 2 is out of range"),
        (["system.guidance.min_step_percent=0.99"], "min_step_percent is 0.99 at step 0, above max_step_percent 0.5"),
        (["system.guidance.min_step_percent=[0,0.4,0.99,100]"], "min_step_percent is 0.99 at step 100, above max"),
        (["data.random_camera.eval_elevation_deg=91"], "data.random_camera.eval_elevation_deg: 91 is out of range"),
        (["data.default_elevation_deg=-91", "system.loss.lambda_sds=0"], "data.default_elevation_deg"),
        (["data.random_camera.n_test_views=0"], "data.random_camera.n_test_views: 0 is out of range"),
        (
            ["data.random_camera.batch_size=[1,2]", "system.loss.lambda_sds=0"],
            "data.random_camera.batch_size: 2 values",
        ),
        (["health.elevation_range=[70,-15]"], "health.elevation_range: expected [low, high]"),
        (["health.min_occupied=0.95"], "min_occupied, max_occupied: expected [low, high]"),
        (
            [
                "system.scheduler={name: SequentialLR, milestones: [9, 4], schedulers: [{name: ConstantLR}, {name: ConstantLR}]}"
            ],
            "system.scheduler.milestones: [9, 4] for 2 schedulers",
        ),
        (["system.optimizer.name=Adm"], "Did you mean 'Adam'?"),
        (["system.optimizer.args.lrr=1"], "system.optimizer.args.lrr"),
        (["system.guidance_type=stable-zero12-guidance"], "Did you mean 'stable-zero123-guidance'?"),
        (["system.exporter.formats=[gbl]", "system.loss.lambda_sds=0"], "gbl"),
        (["data=3"], "data"),
        (["trainer.max_steps=many"], "trainer.max_steps"),
        (["system.loggers.wandb.enable=true", "system.loss.lambda_sds=0"], "pip install wandb"),
    ],
)
def test_a_mistake_is_one_sentence(launch, overrides, message, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find(name, *a))
    code, error = launch(*overrides)
    assert code == 2
    assert message in error


def test_config_files_that_are_none(launch, tmp_path):
    assert launch(config=tmp_path / "folder")[1].endswith("--config needs a YAML file.")
    assert "does not exist" in launch(config=tmp_path / "nothing.yaml")[1]
    assert "Did you mean 'stable-zero123.yaml'?" in launch(config=REPOSITORY / "configs" / "stable-zero12.yaml")[1]
    assert "garbage.ckpt" in launch(config=tmp_path / "garbage.ckpt")[1]


@pytest.mark.parametrize("mode", ["--validate", "--test", "--export"])
def test_modes_that_need_a_checkpoint_say_so(launch, mode):
    assert launch(mode=mode)[1].startswith(f"error: {mode} needs resume=")


def test_missing_image_is_reported_before_threads_are_timed(launch, monkeypatch):
    monkeypatch.setattr("zero123s.run.runner.choose_threads", lambda *args: pytest.fail("threads were timed"))
    assert "nothing.png" in launch("data.image_path=nothing.png", "system.loss.lambda_sds=0")[1]
