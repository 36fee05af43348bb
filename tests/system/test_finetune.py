"""Zero123 training through the command line: it learns, resumes exactly, and its result guides."""

import csv
import json
import time
from pathlib import Path

import forked
import pytest
import torch
from tiny_lpips import write_weights

from zero123s.callbacks.checkpoints import AtomicCheckpointIO
from zero123s.commands.launch import main
from zero123s.data.rendered_views import RenderedViews
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123, save_zero123
from zero123s.diffusion.validation import embedding_similarity, image_scores, pose_sensitivity, sample_views
from zero123s.errors import CheckpointError, ConfigError
from zero123s.system.finetune import Zero123FinetuneSystem

pytestmark = pytest.mark.end_to_end

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = Path(__file__).parents[1] / "helpers" / "tiny_lifted.yaml"


@pytest.fixture(scope="module")
def launch(rendered_views, tiny_autoencoder, tmp_path_factory):
    def run(name: str, *overrides: str, kill_at_step: int = 0) -> Path:
        root = tmp_path_factory.getbasetemp() / "finetune" / name
        base = [
            "--config", str(CONFIGS / "train-small-zero123.yaml"), "--train", f"exp_root_dir={root}", "use_timestamp=false",
            f"data.root={rendered_views}", "data.batch_size=4", "data.held_out=4", "data.n_targets=2",
            f"system.model={TINY}", f"system.autoencoder={tiny_autoencoder}", "system.ema_decay=0.5",
            "system.n_validation=4", "system.n_samples=2", "system.sample_steps=2",
            "trainer.val_check_interval=0", "trainer.enable_progress_bar=false", "checkpoint.every_n_train_steps=2",
        ]  # fmt: skip
        out = root / "train-small-zero123" / "small"
        if kill_at_step:
            kill_when_reached([*base, *overrides], out / "ckpts" / "last.ckpt", kill_at_step)
        else:
            assert main([*base, *overrides]) == 0
        return out

    return run


def kill_when_reached(overrides: list[str], checkpoint: Path, step: int) -> None:
    """Start a process of its own and kill -9 it once a checkpoint of `step` or later stands."""
    process = forked.start(overrides)
    deadline = time.monotonic() + 240
    while not (checkpoint.exists() and AtomicCheckpointIO().load_checkpoint(checkpoint)["global_step"] >= step):
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()


@pytest.fixture(scope="module")
def started(launch) -> Path:
    """A model trained one step, to go on from."""
    return launch("start", "trainer.max_steps=1") / "export" / "zero123.safetensors"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return AtomicCheckpointIO().load_checkpoint(run / "ckpts" / "last.ckpt")["state_dict"]


def test_it_learns_and_its_result_loads_and_samples(launch, rendered_views):
    run = launch("learn", "trainer.max_steps=12")
    rows = (run / "csv_logs" / "version_0" / "metrics.csv").read_text()
    assert "train/denoise" in rows
    assert "train/lift" in rows
    record = json.loads((run / "run.json").read_text())
    assert {"x0_error", "mirrored_ratio", "lift_iou", "psnr", "copy_psnr", "ssim", "embedding_similarity"} <= set(
        record["metrics"]
    )
    model = load_zero123(run / "export" / "zero123.safetensors", dtype="fp32")
    assert model.lift is not None
    assert model.config.parameterization == "v"
    assert model.info["name"] == "own", "trained from scratch: nobody else's licence"
    data = RenderedViews(RenderedViews.Config(root=str(rendered_views), held_out=4))
    data.prepare()
    views = data.validation_batch(0, 4)
    ratios = {f"{where}{pose}_ratio" for where in ("", "picture_") for pose in ("shuffled", "mirrored", "identity")}
    assert set(pose_sensitivity(model, views)) == {"x0_error"} | ratios
    assert embedding_similarity(model, views.on_white()[:, 1], views) == pytest.approx(1)
    drawn = sample_views(model, views, steps=2)
    assert drawn.shape == (4, 3, 32, 32)
    assert image_scores(views.on_white()[:, 1], views) == {
        "psnr": pytest.approx(100),
        "ssim": pytest.approx(1),
        "mask_iou": pytest.approx(1, abs=0.1),
        "relative_roughness": pytest.approx(1),
    }


def test_lpips_scores_drawn_views(launch, tmp_path):
    folder = write_weights(tmp_path)
    run = launch("lpips", "trainer.max_steps=2", f"system.lpips={folder}")
    metrics = json.loads((run / "run.json").read_text())["metrics"]
    assert metrics["lpips"] > 0
    assert metrics["copy_lpips"] > 0
    assert not [name for name in weights(run) if "lpips" in name], "somebody else's weights are in no checkpoint"


def test_missing_lpips_weights_are_reported_before_training(rendered_views, tiny_autoencoder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    data = RenderedViews(RenderedViews.Config(root=str(rendered_views), held_out=4))
    data.prepare()
    cfg = Zero123FinetuneSystem.Config(model=str(TINY), autoencoder=str(tiny_autoencoder), lpips=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"LPIPS lacks alexnet-owt-7be5be79.pth"):
        Zero123FinetuneSystem(cfg, data).load_networks(torch.device("cpu"))


def test_a_resumed_training_ends_with_the_same_weights(launch):
    whole = launch("whole", "trainer.max_steps=4")
    launch("parts", "trainer.max_steps=2")
    resumed = launch("parts", "trainer.max_steps=4", "resume=last")
    first, second = weights(whole), weights(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    exports = [load_zero123(run / "export" / "zero123.safetensors", dtype="fp32") for run in (whole, resumed)]
    pairs = zip(exports[0].parameters(), exports[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "the averages went on too"


@pytest.mark.slow  # end_to_end/test_kill.py kills smaller runs; the test above resumes this one
def test_a_killed_training_ends_with_the_same_weights(launch):
    whole = launch("undisturbed", "trainer.max_steps=24")
    killed = launch("killed", "trainer.max_steps=24", kill_at_step=4)
    reached = AtomicCheckpointIO().load_checkpoint(killed / "ckpts" / "last.ckpt")["global_step"]
    assert 4 <= reached < 24
    assert not (killed / "export").exists()
    launch("killed", "trainer.max_steps=24", "resume=last")
    first, second = weights(whole), weights(killed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert last_loss(whole) == last_loss(killed)


def last_loss(run: Path) -> str:
    newest = max(run.glob("csv_logs/*/metrics.csv"), key=lambda p: p.stat().st_mtime)
    rows = [row for row in csv.DictReader(newest.read_text().splitlines()) if row["train/denoise"]]
    return rows[-1]["train/denoise"]


def test_mixed_precision_clips_and_learns(launch):
    run = launch("mixed", "trainer.max_steps=2", "trainer.precision=bf16-mixed", "trainer.log_every_n_steps=1")
    assert float(last_loss(run)) > 0


def test_a_lift_learns_the_mirrored_image(launch, started):
    overrides = ["system.model=", f"system.checkpoint={started}", "system.components=[lift]"]
    fit = ["system.lambda_lift=0", "system.lambda_denoise=0", "system.lambda_mirror=1", "system.mirror_lift=true"]
    run = launch("mirror", *overrides, *fit, "trainer.max_steps=40", "system.optimizer.args.lr=6e-3")
    with open(run / "csv_logs" / "version_0" / "metrics.csv") as file:
        losses = [float(row["train/mirror"]) for row in csv.DictReader(file) if row.get("train/mirror")]
    assert losses[-1] < 0.8 * losses[0], "better than the flip it starts as"
    model, begun = load_zero123(run / "export" / "zero123.safetensors"), load_zero123(started)
    assert model.lift is not None
    assert begun.lift is not None
    assert model.lift.mirror is not None
    assert begun.lift.mirror is None
    assert model.config.pose_lift == {**(begun.config.pose_lift or {}), "mirrored": True}
    for name, tensor in begun.lift.named_parameters():
        torch.testing.assert_close(model.lift.get_parameter(name), tensor, msg=f"{name} has nothing to learn here")


def test_a_mirror_that_is_not_there_is_reported(launch, capsys):
    with pytest.raises(AssertionError):
        launch("no-mirror", "trainer.max_steps=1", "system.lambda_mirror=1")
    assert "add system.mirror_lift=true" in capsys.readouterr().err


def test_training_the_lift_leaves_the_denoiser_alone(launch):
    run = launch("lift", "trainer.max_steps=3", "system.components=[lift]", "system.lambda_denoise=0")
    trained = load_zero123(run / "export" / "zero123.safetensors", dtype="fp32")
    again = launch("lift0", "trainer.max_steps=1", "system.components=[lift]", "system.lambda_denoise=0")
    begun = load_zero123(again / "export" / "zero123.safetensors", dtype="fp32")
    assert all(torch.equal(a, b) for a, b in zip(trained.unet.parameters(), begun.unet.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(trained.lift.parameters(), begun.lift.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "either `model`"),
        ({"model": "a.yaml", "checkpoint": "b"}, "either `model`"),
        ({"model": "a.yaml", "components": ["unets"]}, "'unets' is none of"),
    ],
)
def test_bad_settings_are_reported(changes, message):
    with pytest.raises(ConfigError, match=message):
        Zero123FinetuneSystem.check(Zero123FinetuneSystem.Config(**changes))


def test_data_visits_every_object_once_an_epoch(rendered_views):
    data = RenderedViews(RenderedViews.Config(root=str(rendered_views), batch_size=4, n_targets=2, held_out=4))
    data.prepare()
    epoch = torch.cat([data.batch_at(step).rgba[:, 0, ..., 3].mean((1, 2)) for step in range(2)])
    assert len(data.train) == 8
    assert len(epoch.unique()) == 8
    again = data.batch_at(1)
    assert torch.equal(again.rgba, data.batch_at(1).rgba)
    assert again.rgba.shape == (4, 3, 32, 32, 4)
    assert (again.elevation_deg[:, 0] <= 45).all()
    assert not torch.equal(again.rgba, data.batch_at(1, micro_step=1).rgba)


def test_training_from_cached_latents_equals_training_from_images(launch, started, rendered_views, tmp_path):
    from zero123s.commands.main import main as command

    assert command(["cache-latents", str(rendered_views), str(tmp_path / "latents"), "--checkpoint", str(started)]) == 0
    overrides = [
        "trainer.max_steps=2",
        "trainer.log_every_n_steps=1",
        "system.model=''",
        f"system.checkpoint={started}",
    ]
    overrides.append("system.components=[unet]")
    images = launch("pictures", *overrides)
    cached = launch("cached", *overrides, f"data.latents={tmp_path / 'latents'}")
    first, second = (losses(run) for run in (images, cached))
    assert len(first) == 2
    assert first == pytest.approx(second, rel=0.01), "half precision is all that differs"


def test_adapters_train_resume_and_are_merged(launch, started):
    overrides = ["system.model=''", f"system.checkpoint={started}", "system.components=[unet,cc_projection]"]
    overrides += ["system.lora_rank=2", "system.gradient_checkpointing=true"]
    launch("lora", *overrides, "trainer.max_steps=2")
    run = launch("lora", *overrides, "trainer.max_steps=3", "resume=last")
    trained, begun = (load_zero123(p, dtype="fp32") for p in (run / "export" / "zero123.safetensors", started))
    assert set(trained.state_dict()) == set(begun.state_dict())
    changed = [n for n, p in trained.unet.named_parameters() if not torch.equal(p, begun.unet.get_parameter(n))]
    assert changed
    assert all(".attentions." in name for name in changed)
    assert trained.info["name"] == begun.info["name"] == "own"
    renamed = started.with_name("stable_zero123_c.safetensors")
    save_zero123(begun, renamed, metadata={"name": "stable-zero123-c"})
    tuned = launch("tuned", "system.model=''", f"system.checkpoint={renamed}", "trainer.max_steps=1") / "export"
    assert load_zero123(tuned / "zero123.safetensors").info["name"] == "stable-zero123-c", "licences are inherited"


def losses(run: Path) -> list[float]:
    rows = csv.DictReader((run / "csv_logs" / "version_0" / "metrics.csv").read_text().splitlines())
    return [float(row["train/denoise"]) for row in rows if row.get("train/denoise")]
