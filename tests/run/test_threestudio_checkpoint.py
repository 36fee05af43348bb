"""Checkpoints in threestudio's layout become weights here: the same field, exported, trained on, and refined."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from tiny_threestudio import tiny_words

from zero123s.commands.launch import main
from zero123s.errors import CheckpointError
from zero123s.run.plan import plan_run
from zero123s.run.starting_weights import load_weights, start_from_weights
from zero123s.run.threestudio_checkpoint import native_weights

RECIPE = Path(__file__).parents[1] / "config" / "threestudio" / "dreamfusion-sd.yaml"
WORDS = ["use_timestamp=False", "tag=trial", "system.geometry.pos_encoding_config.n_levels=8"]
DERIVED = {
    "geometry.bbox": torch.tensor([[-2.0] * 3, [2.0] * 3]),
    "renderer.bbox": torch.tensor([[-2.0] * 3, [2.0] * 3]),
    "renderer.estimator.resolution": torch.tensor([32, 32, 32]),
    "renderer.estimator.grid_indices": torch.arange(32**3),
    "material.ambient_light_color": torch.full((3,), 0.1),
    "material.diffuse_light_color": torch.full((3,), 0.9),
    "background.encoding.encoding.encoding.params": torch.zeros(0),
}


def theirs_of(state):
    """A state dict here, under threestudio's names: tiny-cuda-nn's flat table, layers counted with activations."""
    found = dict(DERIVED)
    for name, value in state.items():
        new = re.sub(r"layers\.(\d+)", lambda m: f"layers.{2 * int(m[1])}", name)
        new = new.replace("background.network.network.", "background.network.").replace(
            "renderer.grid.", "renderer.estimator."
        )
        is_table = name == "geometry.encoding.table"
        found["geometry.encoding.encoding.encoding.params" if is_table else new] = (
            value.clone().flatten() if is_table else value
        )
    return found


@pytest.fixture(scope="module")
def trial(tiny_text_model, tmp_path_factory):
    """A run folder of threestudio's with a trained field, the plan for it, and its system."""
    folder = tmp_path_factory.mktemp("threestudio")
    overrides = [*tiny_words(yaml.safe_load(RECIPE.read_text()), tiny_text_model, [], "", None), *WORDS]
    _, plan = plan_run(RECIPE, overrides)
    system = plan.build(prepare=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        system.geometry.encoding.table.normal_(std=0.2, generator=generator)
        system.background.network.network.layers[0].weight.normal_(generator=generator)
    system.renderer.grid.mark_all_occupied()
    checkpoint = folder / "trial" / "ckpts" / "last.ckpt"
    (folder / "trial" / "configs").mkdir(parents=True)
    checkpoint.parent.mkdir()
    content = yaml.safe_load(RECIPE.read_text())
    (folder / "trial" / "configs" / "parsed.yaml").write_text(
        yaml.safe_dump({**content, "n_gpus": 1, "trial_name": "x"})
    )
    state = {"state_dict": theirs_of(system.state_dict()), "epoch": 0, "global_step": 7}
    torch.save({**state, "pytorch-lightning_version": "2.0.0", "callbacks": {}, "optimizer_states": [{}]}, checkpoint)
    return checkpoint, plan, system, overrides


def test_the_same_field_comes_back(trial):
    checkpoint, plan, system, _ = trial
    other = plan.build(prepare=False)
    assert load_weights(other, checkpoint) == 7
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in system.state_dict().items())


def test_weights_start_a_run_without_ignored_modules(trial):
    checkpoint, plan, system, _ = trial
    other = plan.build(prepare=False)
    fresh = other.background.network.network.layers[0].weight.clone()
    other.cfg.weights_ignore_modules = ["background"]
    assert start_from_weights(other, str(checkpoint))["step"] == 7
    assert torch.equal(other.geometry.encoding.table, system.geometry.encoding.table)
    assert torch.equal(other.background.network.network.layers[0].weight, fresh)


def test_it_exports_by_its_own_settings(trial):
    checkpoint, _, _, overrides = trial
    parsed = checkpoint.parents[1] / "configs" / "parsed.yaml"
    small = [
        "system.exporter.isosurface_resolution=24",
        "system.exporter.texture_size=64",
        "system.exporter.poster=false",
    ]
    start = ["--config", str(parsed), "--gpu", "0", *overrides, *small, f"resume={checkpoint}"]
    fmt = ["system.exporter_type=mesh-exporter", "system.exporter.fmt=obj", "system.exporter.context_type=cuda"]
    assert main([*start, "--export", *fmt]) == 0
    assert (checkpoint.parents[1] / "export" / "model.obj").is_file()


def test_it_trains_on_from_its_step(trial, tmp_path):
    overrides = trial[3]
    start = ["--config", str(RECIPE), "--gpu", "0", "--train", *overrides, f"exp_root_dir={tmp_path}"]
    assert main(start) == 0
    (own,) = tmp_path.rglob("last.ckpt")
    state = torch.load(own, weights_only=True)
    kept = {key: state[key] for key in ("epoch", "global_step", "pytorch-lightning_version", "loops")}
    theirs = tmp_path / "theirs" / "ckpts" / "last.ckpt"
    theirs.parent.mkdir(parents=True)
    torch.save(
        {**kept, "state_dict": theirs_of(state["state_dict"]), "optimizer_states": [{}], "callbacks": {}}, theirs
    )
    assert main([*start, f"resume={theirs}", "trainer.max_steps=3"]) == 0
    run = theirs.parents[1]
    assert json.loads((run / "run.json").read_text())["step"] == 3
    steps = {row["step"] for row in csv.DictReader(next(run.glob("csv_logs/*/metrics.csv")).open())}
    assert steps == {"2"}, "two steps were done before"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("geometry.density_network.network.params", torch.zeros(16), "networks of tiny-cuda-nn"),
        ("geometry.sdf", torch.zeros(8, 1), "tetrahedra-sdf-grid"),
        ("geometry.encoding.encoding.encoding.params", torch.zeros(6), "has 6 numbers, and this configuration"),
        ("geometry.something.else", torch.zeros(1), "has no place in this configuration"),
    ],
)
def test_what_does_not_fit_is_reported(trial, name, value, message):
    _, plan, system, _ = trial
    weights = {**theirs_of(system.state_dict()), name: value}
    with pytest.raises(CheckpointError, match=message):
        native_weights(weights, plan.build(prepare=False), "last.ckpt")
