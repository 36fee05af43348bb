"""threestudio's published files load, build and train unchanged; only sizes are overridden, in its own words."""

import json
from pathlib import Path

import pytest

from zero123s.commands.launch import main
from zero123s.config.load import load_config
from zero123s.errors import ConfigError
from zero123s.run.plan import check_experiment

REPOSITORY = Path(__file__).parents[2]
FILES = [Path(__file__).parent / "threestudio" / f"{name}.yaml" for name in ("stable-zero123", "zero123")]
TINY = [
    "data.height=[12,16,16]",
    "data.width=[12,16,16]",
    "data.resolution_milestones=[1,2]",
    "data.random_camera.height=8",
    "data.random_camera.width=8",
    "data.random_camera.batch_size=[2,1,1]",
    "data.random_camera.resolution_milestones=[1,2]",
    "data.random_camera.eval_height=16",
    "data.random_camera.eval_width=16",
    "data.random_camera.n_val_views=1",
    "data.random_camera.n_test_views=2",
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.geometry.pos_encoding_config.log2_hashmap_size=10",
    "system.geometry.mlp_network_config.n_neurons=16",
    "system.renderer.num_samples_per_ray=32",
    "trainer.max_steps=2",
    "trainer.enable_progress_bar=false",
    "export_after_train=false",
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_file_builds_at_full_size(path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    plan = check_experiment(load_config(path))
    system = plan.build()
    stable = path.stem == "stable-zero123"
    assert system.geometry.encoding.table.numel() == 12_599_920
    assert (system.geometry.cfg.normal_type, system.geometry.cfg.radius) == ("analytic", 2.0)
    assert system.renderer.bound == 2.0
    assert system.loss_weights.weight("rgb", 400) == (1000 if stable else 500)
    assert system.loss_weights.weight("normal_smooth", 125) == (6 if stable else 8)
    assert system.loss_weights.needs("novel", 0) == {"samples", "normal", "normal_perturbed"}
    guidance = system.cfg.guidance
    assert guidance.checkpoint == f"load/zero123/{'stable_zero123' if stable else 'zero123-xl'}.ckpt"
    assert guidance.min_step_percent == ([50, 0.7, 0.3, 200] if stable else [0, 0.4, 0.2, 200])
    assert len(system.data_source.batch_at(0).novel) == 12
    assert system.data_source.reference().depth is None
    optimizer = system.cfg.optimizer
    assert (optimizer.name, optimizer.args["lr"], list(optimizer.args["betas"])) == ("Adam", 0.01, [0.9, 0.99])
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert any("pretrained_model_name_or_path is system.guidance.checkpoint" in n for n in notes)
    assert len(notes) == 15, "every word without a meaning here is named, and no other"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_file_trains(path, monkeypatch, tmp_path, tiny_zero123, capsys):
    monkeypatch.chdir(REPOSITORY)
    checkpoint, config = tiny_zero123
    checkpoint = checkpoint.replace("guidance.checkpoint", "guidance.pretrained_model_name_or_path")
    overrides = [f"exp_root_dir={tmp_path}", checkpoint, config, *TINY]
    assert main(["--config", str(path), "--train", "--gpu", "0", *overrides]) == 0
    runs = tmp_path / ("zero123-sai" if path.stem == "stable-zero123" else "zero123")
    (run,) = (p for p in runs.iterdir() if p.is_dir())
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["step"]) == ("finished", 2)
    assert run.name.startswith("8_hamburger_rgba.png@")
    if path.stem == "zero123":
        assert "16-mixed needs CUDA" in capsys.readouterr().err


def test_the_command_line_wins_by_either_key_name(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    for word in ("system.guidance.checkpoint=auto", "system.guidance.pretrained_model_name_or_path=auto"):
        assert check_experiment(load_config(FILES[0], [word])).experiment.system.guidance.checkpoint == "auto"


def test_two_names_of_one_key_are_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("system: {guidance: {checkpoint: auto, pretrained_model_name_or_path: a.ckpt}}\n")
    with pytest.raises(ConfigError, match="give only one of them"):
        load_config(path)


@pytest.mark.parametrize(("value", "noted"), [("null", 0), ("4.0", 1)])
def test_former_keys_of_run_folders_are_accepted(tmp_path, value, noted):
    (tmp_path / "config.yaml").write_text(f"trainer: {{max_memory_gb: {value}}}\ndata: {{image_path: x.png}}\n")
    loaded = load_config(tmp_path / "config.yaml")
    assert "max_memory_gb" not in loaded.cfg.trainer
    assert sum("trainer.max_memory_gb no longer exists" in n for n in loaded.notices) == noted


@pytest.mark.parametrize(("former", "expected"), [("25", 25), ("auto", 10)])
def test_earlier_exporter_thresholds_move_to_the_geometry(former, expected, tmp_path):
    (tmp_path / "config.yaml").write_text(
        f"system: {{exporter: {{isosurface_threshold: {former}}}, geometry: {{isosurface_threshold: 10}}}}\n"
    )
    loaded = load_config(tmp_path / "config.yaml")
    assert loaded.cfg.system.geometry.isosurface_threshold == expected
    assert "isosurface_threshold" not in loaded.cfg.system.exporter
