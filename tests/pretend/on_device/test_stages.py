"""Which device a run's stages compute on, by a system of one parameter."""

import json

import pytest
import tiny_system
import torch

from zero123s.commands.launch import main
from zero123s.system.visualize import score_reference

where: dict[str, str] = {}


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    """Where the parameter lies when a stage begins, by stage."""
    where.clear()

    def stage(name):
        return lambda self, *args: where.update({name: self.walker.device.type}) or {}

    for name in ("preview", "test", "export"):
        monkeypatch.setattr(tiny_system.TinySystem, name, stage(name))


def test_stages_after_training_compute_on_the_device(tmp_path):
    assert tiny_system.launch(tmp_path, "--gpu", "0") == 0
    assert where == {"preview": "cuda", "test": "cuda", "export": "cuda"}
    record = json.loads((tmp_path / "tiny" / "run" / "run.json").read_text())
    assert record["peak_memory_gb"] == 0, "of the GPU, which here has no memory"


@pytest.mark.parametrize(("mode", "stage"), [("validate", "preview"), ("test", "test"), ("export", "export")])
def test_modes_without_training_compute_on_the_device(mode, stage, tmp_path):
    assert tiny_system.launch(tmp_path) == 0
    where.clear()
    overrides = ["--config", str(tmp_path / "tiny.yaml"), f"--{mode}", "--gpu", "0", f"exp_root_dir={tmp_path}"]
    assert main([*overrides, "resume=last"]) == 0
    assert where == {stage: "cuda"}


def test_the_reference_is_scored_on_the_device(disc_data):
    class White:
        """Renders white, opaque everywhere."""

        device = torch.device("cuda")
        eval = train = lambda self: None

        def background(self, dirs):
            return torch.ones(3, device=self.device) + 0 * dirs

        def render(self, cameras):
            white = torch.ones(1, cameras.height, cameras.width, 3, device=self.device)
            return type("Output", (), {"comp_rgb": white, "opacity": white[..., :1]})

    assert score_reference(White(), disc_data.reference())["psnr"] > 0
