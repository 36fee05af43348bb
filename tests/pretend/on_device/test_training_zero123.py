"""Training and using the guiding model: fine-tuning with averages, and views."""

from pathlib import Path

import pytest
from PIL import Image

from pretend.on_device.commands import REPOSITORY, launch_plain
from zero123s.commands import views

slow = pytest.mark.slow
TINY = REPOSITORY / "tests" / "helpers" / "tiny_lifted.yaml"
GOLDEN = REPOSITORY / "tests" / "golden"


@pytest.fixture
def finetune(rendered_views, tiny_autoencoder):
    def run(out: Path, *words: str) -> Path:
        return launch_plain(
            "train-small-zero123", out, f"data.root={rendered_views}", "data.held_out=4", "data.batch_size=2",
            "data.n_targets=1", f"system.model={TINY}", f"system.autoencoder={tiny_autoencoder}",
            "system.ema_decay=0.5", "system.n_validation=4", "system.n_samples=2", "system.sample_steps=2",
            "trainer.val_check_interval=1", "trainer.max_steps=2", *words,
        )  # fmt: skip

    return run


def test_fine_tuning_with_averages_resumes(finetune, tmp_path, counts):
    run = finetune(tmp_path)
    assert (run / "export" / "zero123.safetensors").is_file()
    assert counts.n_launches > 0
    finetune(tmp_path, f"resume={run}", "trainer.max_steps=3")


@pytest.mark.parametrize("words", [
    ["--dtype", "fp32"],
    *[pytest.param(words, marks=slow) for words in (
        [], ["--sampler", "euler"], ["--sampler", "dpm-solver"], ["--sampler", "original", "--eta", "1"],
    )],
])  # fmt: skip
def test_views_of_a_picture(words, tiny_zero123, tmp_path, counts):
    checkpoint, config = (word.split("=", 1)[1] for word in tiny_zero123)
    picture = str(REPOSITORY / "load" / "images" / "hamburger_rgba.png")
    own = ["--azimuths", "0,90", "--steps", "2", "--out", str(tmp_path / "views.png")]
    assert views.main([picture, *own, "--checkpoint", checkpoint, "--model-config", config, *words]) == 0
    assert Image.open(tmp_path / "views.png").size[0] > 0
    assert counts.n_launches > 0
