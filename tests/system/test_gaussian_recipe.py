"""The Gaussian recipe: resumed exactly across densifications, exported as a mesh and as splats; what does not go together."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from short_refinement import shorten_refinement

from zero123s.commands.launch import main
from zero123s.config.load import load_config
from zero123s.errors import ConfigError
from zero123s.losses import LossWeights, loss_config
from zero123s.mesh.readers import read_mesh
from zero123s.mesh.splats import read_splats
from zero123s.run.plan import inherit_first_stage
from zero123s.system.slots import check_gaussians

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "multi-view-gaussians.yaml"
REFINE = ROOT / "configs" / "stable-zero123-refine-mesh.yaml"
WORDS = [
    f"data.transforms_path={ROOT / 'load' / 'images' / 'multi_view_sample' / 'transforms.json'}",
    *("data.height=24", "data.width=24", "data.batch_size=3", "data.resolution_milestones=[]"),
    *("data.random_camera.eval_height=24", "data.random_camera.eval_width=24"),
    *("data.random_camera.n_val_views=1", "data.random_camera.n_test_views=2"),
    *("system.geometry.n_points=20", "system.exporter.isosurface_resolution=32", "system.exporter.texture_size=64"),
    *("system.geometry.densification.start_step=2", "system.geometry.densification.interval=4"),
    "system.geometry.densification.end_step=350",
    *("system.geometry.densification.grad_threshold=0.001", "system.geometry.densification.opacity_reset_interval=6"),
    *("trainer.enable_progress_bar=false", "trainer.val_check_interval=0"),
    *("use_timestamp=false", "threads=1"),
]


def train(root, *overrides):
    return main(["--config", str(CONFIG), "--train", f"exp_root_dir={root}", *WORDS, *overrides])


def checkpoint(root):
    return torch.load(next(root.rglob("last.ckpt")), weights_only=True)


def test_resumed_run_ends_with_the_same_gaussians(tmp_path):
    assert train(tmp_path / "whole", "trainer.max_steps=14", "export_after_train=false") == 0
    assert train(tmp_path / "parts", "trainer.max_steps=7", "export_after_train=false") == 0
    (folder,) = [p.parent for p in (tmp_path / "parts").rglob("run.json")]
    assert train(tmp_path / "parts", "trainer.max_steps=14", f"resume={folder}", "export_after_train=true") == 0
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert len(whole["state_dict"]["geometry.means"]) != 20, "Gaussians were added or removed"
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name
    moments = [c["optimizer_states"][0]["state"] for c in (whole, parts)]
    for key, state in moments[0].items():
        assert torch.equal(state["exp_avg"], moments[1][key]["exp_avg"])

    record = json.loads((folder / "run.json").read_text())
    files = {kind: folder / path for kind, path in record["files"].items()}
    splats = read_splats(files["gaussians_ply"], 0)
    assert torch.equal(splats.means, parts["state_dict"]["geometry.means"])
    assert Path(files["gaussians_splat"]).stat().st_size == 32 * len(splats.means)
    mesh = read_mesh(files["glb"])
    assert len(mesh.faces) > 50

    # The written splats are a start for another run.
    again = [f"system.geometry.start={files['gaussians_ply']}", "trainer.max_steps=1", "export_after_train=false"]
    assert train(tmp_path / "again", *again) == 0
    assert len(checkpoint(tmp_path / "again")["state_dict"]["geometry.means"]) == len(splats.means)


def test_the_rasteriser_needs_gaussians():
    cfg = SimpleNamespace(geometry_type="volume-grid", renderer_type="gaussian-rasterizer")
    with pytest.raises(ConfigError, match="use geometry_type: gaussians instead of volume-grid"):
        check_gaussians(cfg, LossWeights(loss_config()()))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["system.renderer_type=nerf-volume-renderer"], "use renderer_type: gaussian-rasterizer"),
        (["system.loss.lambda_orient=1"], "lambda_orient needs samples along rays"),
        (["system.geometry.start=no_such.ply"], "no such file"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, capsys, overrides, said):
    assert train(tmp_path, "trainer.max_steps=1", *overrides) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_rates_of_gaussians_are_not_inherited(tmp_path):
    (tmp_path / "ckpts").mkdir()
    (tmp_path / "ckpts" / "last.ckpt").touch()
    (tmp_path / "config.yaml").write_text(CONFIG.read_text())
    words = [f"system.geometry_convert_from={tmp_path}"]
    cfg = inherit_first_stage(load_config(REFINE, words), words, None).cfg
    assert "params" not in cfg.system.optimizer
    assert cfg.system.scheduler.args.gamma == load_config(CONFIG).cfg.system.scheduler.args.gamma


@pytest.mark.slow
def test_a_rasterised_second_stage_starts_from_gaussians(tmp_path, monkeypatch):
    shorten_refinement(monkeypatch, steps=60, resolution=48)
    assert train(tmp_path, "trainer.max_steps=2", "export_after_train=false") == 0
    (first,) = [p.parent for p in tmp_path.rglob("run.json")]
    place = [f"exp_root_dir={tmp_path}", "use_timestamp=false", "threads=1", "export_after_train=true"]
    words = [f"system.geometry_convert_from={first}", "trainer.max_steps=2", "system.renderer.grid_resolution=32"]
    assert main(["--config", str(REFINE), "--profile", "none", "--train", *place, *words]) == 0
    (second,) = [p.parent for p in (tmp_path / REFINE.stem).rglob("run.json")]
    record = json.loads((second / "run.json").read_text())
    assert (record["state"], record["step"]) == ("finished", 2)
    assert record["first_stage"]["surface_distance"] < 0.03
    assert len(read_mesh(second / record["files"]["glb"]).faces) > 50
