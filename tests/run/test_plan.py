"""Which profile of a recipe a run takes when none is named."""

from pathlib import Path

import pytest
import torch

from zero123s.diffusion.checkpoint import locate
from zero123s.run.plan import plan_run

CONFIGS = Path(__file__).parents[2] / "configs"
NOTE = "the bundled model guides, so the recipe's profile cpu is chosen"


def profile_of(config, *words, profile="auto"):
    return plan_run(CONFIGS / config, words, profile)[0].profile


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize("config", ["stable-zero123.yaml", "stable-zero123-csd.yaml", "dreamgaussian.yaml"])
def test_on_cuda_the_bundled_model_gets_its_profile(config, cuda, capsys):
    assert profile_of(config) == "cpu"
    assert capsys.readouterr().err.count(NOTE) == 1
    assert profile_of(config, profile="none") is None
    assert NOTE not in capsys.readouterr().err


def test_on_cuda_other_models_get_the_full_sizes(cuda, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model.ckpt"
    model.write_bytes(b"")
    assert profile_of("stable-zero123.yaml", f"system.guidance.checkpoint={model}") is None
    assert profile_of("multi-view.yaml", "data.transforms_path=load/images/multi_view_sample/transforms.json") is None
    monkeypatch.setattr(locate, "STABLE_ZERO123", str(model))
    assert profile_of("stable-zero123.yaml") is None
    assert NOTE not in capsys.readouterr().err


def test_without_cuda_every_model_gets_the_profile(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = tmp_path / "model.ckpt"
    model.write_bytes(b"")
    assert profile_of("stable-zero123.yaml", f"system.guidance.checkpoint={model}") == "cpu"
    assert NOTE not in capsys.readouterr().err
