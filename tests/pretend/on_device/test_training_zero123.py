"""Training and using the guiding model: fine-tuning whole or by LoRA, its autoencoder, cached latents, views."""

from pathlib import Path

import pytest
from PIL import Image

from pretend.on_device.commands import REPOSITORY, launch_plain
from zero123s.commands import cache_latents, views

slow = pytest.mark.slow
TINY = REPOSITORY / "tests" / "helpers" / "tiny_lifted.yaml"


@pytest.fixture
def finetune(rendered_views, tiny_autoencoder):
    def run(out: Path, *overrides: str) -> Path:
        return launch_plain(
            "train-small-zero123", out, f"data.root={rendered_views}", "data.held_out=4", "data.batch_size=2",
            "data.n_targets=1", f"system.model={TINY}", f"system.autoencoder={tiny_autoencoder}",
            "system.ema_decay=0.5", "system.n_validation=4", "system.n_samples=2", "system.sample_steps=2",
            "trainer.val_check_interval=2", "trainer.max_steps=2", *overrides,
        )  # fmt: skip

    return run


def test_fine_tuning_with_averages_resumes(finetune, tmp_path, counts):
    run = finetune(tmp_path)
    assert (run / "export" / "zero123.safetensors").is_file()
    assert counts.n_launches > 0
    finetune(tmp_path, f"resume={run}", "trainer.max_steps=3")


@slow
@pytest.mark.parametrize("word", ["trainer.precision=16-mixed", "system.optimizer={name: MuonAdamW, args: {lr: 1e-3}}"])
def test_fine_tuning_with_an_option(finetune, tmp_path, word, counts):
    finetune(tmp_path, word)
    assert counts.n_launches > 0


@slow
def test_lora_tunes_an_exported_model(finetune, tmp_path):
    whole = finetune(tmp_path / "whole")
    tuned = finetune(
        tmp_path / "lora", "system.model=''", f"system.checkpoint={whole}/export/zero123.safetensors",
        "system.autoencoder=''", "system.components=[unet,cc_projection]", "system.lora_rank=2",
        "system.gradient_checkpointing=true",
    )  # fmt: skip
    assert (tuned / "export" / "zero123.safetensors").is_file()


@slow
def test_an_autoencoder_trains(rendered_views, tmp_path, counts):
    launch_plain(
        "train-autoencoder", tmp_path, f"data.root={rendered_views}", "data.held_out=4", "data.batch_size=2",
        "data.n_targets=1", f"system.model={TINY}", "system.crop_size=16", "system.crop_until=1",
        "trainer.val_check_interval=1", "trainer.max_steps=2",
    )  # fmt: skip
    assert counts.n_launches > 0


@slow
def test_latents_are_cached(rendered_views, tmp_path, counts):
    model = REPOSITORY / "load" / "zero123" / "small_zero123.safetensors"
    assert cache_latents.main([str(rendered_views), str(tmp_path / "latents"), "--checkpoint", str(model)]) == 0
    assert counts.n_launches > 0


@pytest.mark.parametrize("overrides", [
    ["--dtype", "fp32"],
    *[pytest.param(overrides, marks=slow) for overrides in (
        [], ["--sampler", "euler"], ["--sampler", "dpm-solver"], ["--sampler", "original", "--eta", "1"],
    )],
])  # fmt: skip
def test_views_of_a_picture(overrides, tiny_zero123, tmp_path, counts):
    checkpoint, config = (word.split("=", 1)[1] for word in tiny_zero123)
    image = str(REPOSITORY / "load" / "images" / "hamburger_rgba.png")
    own = ["--azimuths", "0,90", "--steps", "2", "--out", str(tmp_path / "views.png")]
    assert views.main([image, *own, "--checkpoint", checkpoint, "--model-config", config, *overrides]) == 0
    assert Image.open(tmp_path / "views.png").size[0] > 0
    assert counts.n_launches > 0
