"""Every YAML that ships parses down to its last key; threestudio's words are understood."""

import json
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from short_refinement import shorten_refinement
from tiny_run import SMALL
from tiny_sdxl import draw_a_disc, save_tiny_sdxl

from zero123s.commands.launch import main
from zero123s.commands.main import COMMANDS
from zero123s.commands.main import main as command
from zero123s.config import threestudio as compat
from zero123s.config.experiment import parse_experiment
from zero123s.config.load import load_config, profile_names
from zero123s.run.folder import plain, run_path
from zero123s.system.base import plan_experiment

pytestmark = pytest.mark.end_to_end

# novel-views.yaml is not an experiment: it holds the settings of `zero123s views`, tested in tests/diffusion.
CONFIGS = sorted(p for p in (Path(__file__).parents[2] / "configs").glob("*.yaml") if p.stem != "novel-views")
TINY_LIFTED = Path(__file__).parents[1] / "helpers" / "tiny_lifted.yaml"
SAMPLE = CONFIGS[0].parents[1] / "load" / "images" / "multi_view_sample" / "transforms.json"
POSED = [f"data.transforms_path={SAMPLE}", "data.batch_size=2"]
REQUIRED = {"multi-view": POSED, "multi-view-gaussians": POSED}


def exports_as_its_base(path: Path) -> bool:
    """Tell whether a config changes only what guides its base: its mesh is made as its base's is."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    changed = set(content.get("system", {})) - {"guidance_type", "guidance", "loss"}
    return "base" in content and not changed | set(content.get("data", {})) - {"random_camera"}


def words_for(path: Path, tiny_zero123: list[str]) -> list[str]:
    """Overrides that every config needs to start here; a config that needs none is not in the table."""
    guided = str(OmegaConf.select(load_config(path).cfg, "system.guidance_type")).endswith("zero123-guidance")
    return [*REQUIRED.get(path.stem, []), *(tiny_zero123 if guided else [])]


@pytest.fixture(scope="module", autouse=True)
def text_words(tiny_text_model, tiny_zero123):
    """What the configs with a prompt need: a toy model, and sections of their own form."""
    text = f"prompt: a ball, checkpoint: {tiny_text_model}"
    checkpoint, config = (word.split("=", 1)[1] for word in tiny_zero123)
    zero123 = f"{{type: stable-zero123-guidance, settings: {{checkpoint: {checkpoint}, config: {config}}}}}"
    both = f"[{zero123}, {{type: stable-diffusion-guidance, settings: {{{text}}}}}]"
    REQUIRED["magic123"] = [f"system.guidance.guidances={both}"]
    REQUIRED["dreamfusion"] = [f"system.guidance={{{text}}}"]


@pytest.fixture(scope="module", autouse=True)
def training_words(rendered_views, tiny_autoencoder, tiny_zero123, tmp_path_factory):
    """What the training configs need: renders, a model of toy size, few validation views; and a first stage to refine."""
    views = [f"data.root={rendered_views}", "data.batch_size=1", "data.held_out=2", "trainer.max_steps=2"]
    few = ["system.n_validation=2", "system.n_samples=1", "system.sample_steps=2"]
    tiny = tiny_zero123[0].replace("system.guidance.checkpoint", "system.checkpoint")
    model = f"system.model={TINY_LIFTED}"
    REQUIRED["train-autoencoder"] = [*views, model, "system.crop_until=1", "system.crop_size=16"]
    sizes = tiny_zero123[1].replace("system.guidance.config", "system.model_config")
    REQUIRED["train-zero123"] = [*views, *few, tiny, sizes]
    first = f"system.geometry_convert_from={_first_stage(tmp_path_factory, tiny_zero123)}"
    REQUIRED["stable-zero123-refine"] = [first]
    REQUIRED["stable-zero123-refine-mesh"] = [first]
    drawing = [f"model={save_tiny_sdxl(tmp_path_factory.mktemp('pipeline'))}", "steps=1", "candidates=1"]
    REQUIRED["text-to-3d"] = [f"data.text_to_image.{word}" for word in (*drawing, "height=64", "width=64")]
    REQUIRED["train-small-zero123"] = [*views, *few, model, f"system.autoencoder={tiny_autoencoder}"]


def _first_stage(tmp_path_factory, tiny_zero123) -> Path:
    root = tmp_path_factory.mktemp("first_stage")
    path = next(p for p in CONFIGS if p.stem == "stable-zero123")
    image = f"data.image_path={path.parents[1] / 'load' / 'images' / 'hamburger_rgba.png'}"
    overrides = [image, f"exp_root_dir={root}", "use_timestamp=false", *tiny_zero123, *SMALL]
    assert main(["--config", str(path), "--train", "--profile", "none", *overrides]) == 0
    return root / "stable-zero123" / "hamburger_rgba"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_dry_runs_with_and_without_profiles(path, capsys, tmp_path, monkeypatch, tiny_zero123):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "load").symlink_to(path.parents[1] / "load")  # a dry run reads the image
    for profile in ("none", *sorted(profile_names(path))):
        overrides = [
            "--config",
            str(path),
            "--train",
            "--dry-run",
            "--profile",
            profile,
            *words_for(path, tiny_zero123),
        ]
        assert main(overrides) == 0
        assert f"# would write to: outputs/{path.stem}" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["load"], "a dry run creates nothing"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_takes_two_steps_and_exports(path, tmp_path, tiny_zero123, monkeypatch):
    draw_a_disc(monkeypatch)
    shorten_refinement(monkeypatch, steps=5)  # what it is worth: tests/system/test_refinement.py
    experiment = parse_experiment(load_config(path, words_for(path, tiny_zero123)))
    fields = {"zero123-system": SMALL, "dreamfusion-system": [w.replace("data.random_camera.", "data.") for w in SMALL]}
    small = fields.get(experiment.system_type, [])
    renderer = OmegaConf.select(load_config(path).cfg, "system.renderer_type")
    if renderer in ("mesh-rasterizer", "gaussian-rasterizer"):
        small = [word for word in small if "num_samples_per_ray" not in word]  # they do not march
    if renderer == "gaussian-rasterizer":
        small = [word for word in small if "pos_encoding_config" not in word]  # Gaussians need no encoding
        small += ["system.geometry.n_points=20"]  # few: at the start each covers its share of the grid that export sums
    if exports_as_its_base(path):
        small = [*small, "export_after_train=false"]
    overrides = ["--config", str(path), "--train", f"exp_root_dir={tmp_path}", *words_for(path, tiny_zero123), *small]
    assert main(overrides) == 0
    (record,) = (json.loads(p.read_text()) for p in tmp_path.rglob("run.json"))
    assert (record["state"], record["step"]) == ("finished", 2)
    (run,) = (p.parent for p in tmp_path.rglob("run.json"))
    files = record.get("files", {})
    assert ("files" in record) != exports_as_its_base(path)
    assert all((run / p).is_file() for p in [*files.values(), *record["pictures"].values()])


def test_the_recipe_has_the_measured_numbers():
    path = next(p for p in CONFIGS if p.stem == "stable-zero123")
    experiment = parse_experiment(load_config(path))
    system = plan_experiment(experiment).experiment.system
    assert experiment.trainer.max_steps == 600
    assert experiment.data.random_camera.batch_size == [12, 8, 4]
    assert (system.guidance.guidance_scale, system.loss.lambda_sds, system.geometry.radius) == (3.0, 0.1, 2.0)


def test_threestudio_words_are_translated_or_noticed():
    content = {
        "data": {"requires_depth": "${cmaxgt0:${system.loss.lambda_depth}}", "image_path": "a.png"},
        "system": {
            "prompt_processor_type": "dummy-prompt-processor",
            "renderer": {"radius": "${system.geometry.radius}", "return_comp_normal": True},
            "geometry": {"radius": 2.0, "isosurface_resolution": 256},
            "guidance": {"pretrained_model_name_or_path": "x.ckpt", "vram_O": True, "cond_elevation_deg": 5.0},
            "loss": {"lambda_depth": 0.0},
            "loggers": {"wandb": {"enable": False, "project": "p", "name": "None"}},
        },
    }
    notices = compat.translate(content, lambda key: False)
    plan = plan_experiment(parse_experiment(_loaded(OmegaConf.create(content))))
    system = plan.experiment.system
    assert (system.guidance.checkpoint, system.exporter.isosurface_resolution) == ("x.ckpt", 256)
    assert len(notices) == 8
    assert not plan.experiment.data.requires_depth
    assert any("prompt" in n for n in notices)


THREESTUDIO_ONLY = {
    "tag": "${data.random_camera.height}_${rmspace:${basename:${data.image_path}},_}",
    "data.requires_depth": "${cmaxgt0orcmaxgt0:${system.loss.lambda_depth},${system.loss.lambda_depth_rel}}",
    "data.requires_normal": "${cmaxgt0:${system.loss.lambda_normal}}",
    "data.random_camera.eval_batch_size": 1,
    "data.random_camera.light_sample_strategy": "dreamfusion",
    "system.renderer.radius": "${system.geometry.radius}",
    "system.renderer.return_comp_normal": "${cmaxgt0:${system.loss.lambda_normal_smooth}}",
    "system.renderer.return_normal_perturb": "${cmaxgt0:${system.loss.lambda_3d_normal_smooth}}",
    "system.prompt_processor_type": "dummy-prompt-processor",
    "system.prompt_processor": {"pretrained_model_name_or_path": "", "prompt": ""},
    "system.guidance.pretrained_config": "./load/zero123/sd-objaverse-finetune-c_concat-256.yaml",
    "system.guidance.pretrained_model_name_or_path": "./load/zero123/stable_zero123.ckpt",
    "system.guidance.vram_O": "${not:${gt0:${system.freq.guidance_eval}}}",
    "system.guidance.cond_image_path": "${data.image_path}",
    "system.guidance.cond_elevation_deg": "${data.default_elevation_deg}",
    "system.guidance.cond_azimuth_deg": "${data.default_azimuth_deg}",
    "system.guidance.cond_camera_distance": "${data.default_camera_distance}",
    "system.loggers": {"wandb": {"enable": False, "project": "threestudio", "name": None}},
    "trainer.num_sanity_val_steps": 0,
    "trainer.precision": 32,
}
"""What threestudio's stable-zero123.yaml sets besides the recipe."""


def test_threestudios_own_recipe_loads_and_builds_unchanged():
    path = next(p for p in CONFIGS if p.stem == "stable-zero123")
    ours = load_config(path).cfg
    cfg = ours.copy()
    del cfg["tag"], cfg["system"]["guidance"]["checkpoint"], cfg["system"]["exporter_type"]
    for key, value in THREESTUDIO_ONLY.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    theirs = OmegaConf.to_container(cfg)
    compat.translate(theirs, lambda key: False)
    plans = [plan_experiment(parse_experiment(_loaded(c))) for c in (ours, OmegaConf.create(theirs))]
    assert run_path(plans[1].experiment).name.startswith("64_128_256__hamburger_rgba.png@")
    for plan in plans:
        plan.experiment.tag = plan.experiment.system.guidance.checkpoint = ""
        plan.experiment.system.loggers.wandb.project = ""
    assert plain(plans[0].experiment) == plain(plans[1].experiment)
    system = plans[1].build(prepare=False)
    assert sum(p.numel() for p in system.geometry.encoding.parameters()) == 12_599_920


def _loaded(cfg):
    from zero123s.config.load import LoadedConfig

    return LoadedConfig(cfg, {}, [], Path("x.yaml"), None)


def test_commands_are_listed_and_typos_answered(capsys):
    assert command([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)
    assert command(["prepair"]) == 2
    assert "Did you mean 'prepare'?" in capsys.readouterr().err
