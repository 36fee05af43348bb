"""Recipes, precisions and options through the command line: trained, previewed, filmed, exported and resumed."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pretend.cuda import pretend_cuda
from pretend.on_device.commands import launch, launch_plain
from zero123s.ops import backends
from zero123s.system import refinement

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tiny_zero123, tmp_path_factory) -> Path:
    """A finished run of the main recipe."""
    with pretend_cuda():
        return launch(
            "stable-zero123", tmp_path_factory.mktemp("main"), *tiny_zero123, "system.freq.guidance_eval=1",
            "system.guidance.dtype=fp32", "export_after_train=false",
        )  # fmt: skip


@pytest.fixture
def devices_used(monkeypatch) -> set[str]:
    """Types of the devices on which the field's operations run."""
    used: set[str] = set()

    def resolve(op: str, backend: str, device: torch.device) -> str:
        used.add(torch.device(device).type)
        return real(op, backend, device)

    real = backends.resolve
    monkeypatch.setattr(backends, "resolve", resolve)
    return used


def test_main_recipe_trains_previews_and_films(trained):
    assert json.loads((trained / "run.json").read_text())["state"] == "finished"
    for name in ("save/it2-test.mp4", "save/it1-val.png", "ckpts/last.ckpt"):
        assert (trained / name).stat().st_size > 0


def test_a_resumed_run_stays_on_the_device(trained, tmp_path, tiny_zero123, devices_used):
    copy = tmp_path / "stable-zero123" / "run"
    shutil.copytree(trained, copy)
    launch(
        "stable-zero123", tmp_path, *tiny_zero123, f"resume={copy}", "trainer.max_steps=3", "export_after_train=true"
    )
    assert json.loads((copy / "run.json").read_text())["step"] == 3
    assert (copy / "export" / "model.glb").stat().st_size > 0
    assert devices_used == {"cuda"}


@slow
@pytest.mark.parametrize("mode", ["--validate", "--test", "--export"])
def test_each_other_mode_computes_on_the_device(mode, trained, tmp_path, tiny_zero123, devices_used):
    copy = tmp_path / "stable-zero123" / "run"
    shutil.copytree(trained, copy)
    launch("stable-zero123", tmp_path, *tiny_zero123, f"resume={copy}", mode=mode)
    assert devices_used == {"cuda"}


SECOND_STAGES = {
    "neus": ("stable-zero123-refine", []),
    "volsdf": ("stable-zero123-refine", ["system.renderer.use_volsdf=true"]),
    "mesh": ("stable-zero123-refine-mesh", ["system.renderer.grid_resolution=16"]),
}


@slow
@pytest.mark.parametrize("name", SECOND_STAGES)
def test_second_stage_goes_on_from_the_first(name, trained, tmp_path, monkeypatch, devices_used):
    for constant, value in (("STEPS", 10), ("RESOLUTION", 32), ("BATCH", 512)):
        monkeypatch.setattr(refinement, constant, value)
    config, overrides = SECOND_STAGES[name]
    run = launch_plain(config, tmp_path, f"system.geometry_convert_from={trained}", "trainer.max_steps=2", *overrides)
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert devices_used == {"cuda"}


OPTIONS = {
    "16-mixed": ["trainer.precision=16-mixed"],
    "vsd": ["system.guidance.variant=vsd"],
}
SLOW_OPTIONS = {
    "deterministic": ["trainer.deterministic=true"],
    "bf16-mixed": ["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2"],
    "64": ["trainer.precision=64"],
    "16-mixed without normals": [
        "trainer.precision=16-mixed",
        *[f"system.loss.lambda_{name}=0" for name in ("normal_smooth", "3d_normal_smooth", "orient")],
    ],
    "micro batch": ["system.guidance.micro_batch=1", "data.random_camera.batch_size=3"],
    "lit": ["system.material.ambient_only_steps=0", "system.material.diffuse_prob=1"],
    "random background": [
        "system.background.random_aug=true", "system.background.random_aug_prob=1", "system.background.learned=true",
    ],
    "environment map": ["system.background_type=neural-environment-map-background"],
    "textured background": ["system.background_type=textured-background"],
    "radiance": ["system.material_type=neural-radiance-material"],
    "finite differences": ["system.geometry.normal_type=finite_difference"],
    "laplacian": ["system.geometry.normal_type=finite_difference_laplacian", "system.geometry.perturbed_share=0.25"],
    "predicted normals": ["system.geometry.normal_type=pred"],
    "softplus": ["system.geometry.mlp_network_config.activation=softplus"],
    "progressive": ["system.geometry.pos_encoding_config.otype=ProgressiveBandHashGrid"],
    "no pruning": ["system.renderer.grid_prune=false"],
    "signed distance": [
        "system.geometry_type=implicit-sdf",
        "system.geometry={normal_type: analytic, pos_encoding_config: {log2_hashmap_size: 12}}",
    ],
    "channels last": ["system.guidance.channels_last=true"],
}  # fmt: skip


@pytest.mark.parametrize("name", [*OPTIONS, *[pytest.param(name, marks=slow) for name in SLOW_OPTIONS]])
def test_option_trains_on_the_device(name, tmp_path, tiny_zero123, counts):
    launch("stable-zero123", tmp_path, *tiny_zero123, *(OPTIONS | SLOW_OPTIONS)[name], "export_after_train=false")
    assert counts.n_launches > 0


@slow
def test_depth_and_normal_images(tmp_path, tiny_zero123, disc_path):
    weights = [f"system.loss.lambda_{name}=0.1" for name in ("depth", "depth_rel", "normal", "near")]
    launch("stable-zero123", tmp_path, *tiny_zero123, f"data.image_path={disc_path}", *weights)


@slow
def test_vsd_resumes(tmp_path, tiny_zero123):
    overrides = [*tiny_zero123, "system.guidance.variant=vsd", "export_after_train=false"]
    run = launch("stable-zero123", tmp_path, *overrides)
    launch("stable-zero123", tmp_path, *overrides, f"resume={run}", "trainer.max_steps=3")
