"""threestudio's recipes run unchanged: each loads, builds and trains two steps, and means what it means there."""

import json
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from short_refinement import shorten_refinement
from tiny_threestudio import tiny_words

from zero123s.commands.launch import main
from zero123s.config.load import load_config
from zero123s.errors import ConfigError
from zero123s.run.plan import check_experiment, plan_run

pytestmark = pytest.mark.end_to_end

FOLDER = Path(__file__).parent / "threestudio"
FILES = {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}
QUICK = ("sjc", "sdi", "prolificdreamer-geometry", "magic123-refine-sd", "unified-zero123-simple", "latentnerf")
"""Recipes that train in every suite; between them they use all that the others do."""
GIVEN = {
    "prompt": "system.prompt_processor.prompt=a ball: red, 1e3",
    "image": "data.image_path=load/images/hamburger_rgba.png",
    "first": "system.geometry_convert_from=somewhere",
}


def plan_of(name: str, *overrides: str):
    """The checked plan of a recipe, with what its file leaves open."""
    content = yaml.safe_load(FILES[name].read_text())
    given = []
    if content["system"].get("prompt_processor", {}).get("prompt") == "???":
        given.append(GIVEN["prompt"])
    if content["data"].get("image_path") == "???":
        given.append(GIVEN["image"])
    if "geometry_convert_from" in content["system"]:
        given.append(GIVEN["first"])
    return check_experiment(load_config(FILES[name], [*given, *overrides]))


@pytest.fixture(scope="module", autouse=True)
def quick_start():
    with pytest.MonkeyPatch.context() as patch:
        shorten_refinement(patch, steps=3, resolution=24)
        yield


@pytest.fixture(scope="module")
def tiny(tiny_text_model, tiny_zero123, disc_path, tmp_path_factory):
    """Words that make a recipe small; its first stage is a dreamfusion-sd.yaml of two steps."""

    def overrides(name: str, first_stage=None) -> list[str]:
        content = yaml.safe_load(FILES[name].read_text())
        return tiny_words(content, tiny_text_model, tiny_zero123, disc_path, first_stage)

    root = tmp_path_factory.mktemp("first")
    start = ["--config", str(FILES["dreamfusion-sd"]), "--train", "--gpu", "0", f"exp_root_dir={root}"]
    assert main([*start, "tag=first", "use_timestamp=False", *overrides("dreamfusion-sd")]) == 0
    return lambda name: overrides(name, root / "dreamfusion-sd" / "first")


def trains(name, tiny, tmp_path):
    assert main(["--config", str(FILES[name]), "--train", "--gpu", "0", f"exp_root_dir={tmp_path}", *tiny(name)]) == 0
    (record,) = (json.loads(p.read_text()) for p in tmp_path.rglob("run.json"))
    assert (record["state"], record["step"]) == ("finished", 2)
    return record


@pytest.mark.parametrize("name", QUICK)
def test_the_recipe_trains(name, tiny, tmp_path):
    record = trains(name, tiny, tmp_path)
    assert ("first_stage" in record) == ("geometry" in name or "refine" in name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FILES) - set(QUICK)))
def test_every_other_recipe_trains(name, tiny, tmp_path):
    trains(name, tiny, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_the_recipe_builds_at_full_size(name, monkeypatch):
    monkeypatch.chdir(FOLDER.parents[2])
    overrides = ["system.geometry.isosurface_resolution=32"] if "tetrahedra" in FILES[name].read_text() else []
    plan = plan_of(name, *overrides)
    system = plan.build(prepare=False)
    written = yaml.safe_load(FILES[name].read_text())
    assert plan.experiment.name == written["name"]
    assert plan.experiment.trainer.max_steps == written["trainer"]["max_steps"]
    assert system.cfg.optimizer.name == written["system"]["optimizer"]["name"]


# ------------------------------------------------------------ what the words mean


def test_the_prompt_names_the_run_and_is_text():
    plan = plan_of("dreamfusion-sd")
    assert plan.experiment.system.guidance.prompt == "a ball: red, 1e3"
    assert plan.experiment.tag == "a_ball:_red,_1e3"
    pair = plan_of("magic123-coarse-sd").experiment
    assert pair.system.guidance.guidances[1].settings.prompt == "a ball: red, 1e3"
    assert pair.tag == "hamburger_rgba.png-a_ball:_red,_1e3"


def test_a_missing_prompt_is_named(capsys):
    with pytest.raises(ConfigError, match=r"prompt.* must be given"):
        check_experiment(load_config(FILES["dreamfusion-sd"]))


MEANINGS = {
    "dreamfusion-sd": {
        "system_type": "dreamfusion-system",
        "system.guidance.checkpoint": "stabilityai/stable-diffusion-2-1-base",
        "system.guidance.scale_from": "conditional",
        "system.geometry.mlp_network_config.n_hidden_layers": 1,
        "system.ambient_ratio_min": None,
    },
    "dreamfusion-sd-eff": {"data_type": "random-camera-datamodule", "data.height": 128},
    "sjc": {
        "system.guidance.variant": "sjc",
        "system.guidance.weighting": "uniform",
        "system.guidance.view_words": "prefix",
        "system.guidance_input": "latents",
        "system.loss.lambda_emptiness": [5000, 1e4, 2e5, 5001],
    },
    "sdi": {
        "system.guidance.variant": "sdi",
        "system.guidance.timesteps": "linear",
        "system.guidance.anneal_steps": 10000,
        "system.guidance.perp_neg": True,
        "system.loss.lambda_sds": 1.0,
        "system.loss.convexity_resolution": 8,
    },
    "hifa": {
        "system.guidance.image_loss": True,
        "system.guidance.timesteps": "sqrt",
        "system.guidance.anneal_steps": 25000,
        "system.loss.lambda_sds_img": 0.01,
    },
    "prolificdreamer": {
        "system.guidance.variant": "vsd",
        "system.guidance.lora_lr": 0.0001,
        "system.guidance.front_threshold": 30.0,
        "system.guidance.scale_from": "unconditional",
        "system.loss.lambda_sds": 1.0,
    },
    "prolificdreamer-geometry": {
        "system.guidance_input": "normal",
        "system.refinement": True,
        "system.renderer_type": "mesh-rasterizer",
        "system.renderer.grid_resolution": 128,
        "system.loss.lambda_laplacian_smoothness": 10000.0,
        "system.geometry_convert_inherit_texture": False,
    },
    "prolificdreamer-texture": {"system.geometry.fix_geometry": True, "system.guidance_input": "rgb"},
    "magic3d-refine-sd": {"system.geometry_convert_inherit_texture": True, "system.material.soft_shading": True},
    "latentnerf": {"system.guidance_input": "latents", "system.scheduler.milestones": [100]},
    "unified-dreamfusion-sd": {"system.guidance.image_loss": False, "system.guidance.scale_from": "unconditional"},
    "magic123-hifa-coarse-sd": {
        "system.guidance_type": "combined-guidance",
        "system.guidance.guidances.0.type": "zero123-guidance",
        "system.guidance.guidances.0.weight": 1.0,
        "system.guidance.guidances.0.settings.guidance_scale": 5.0,
        "system.guidance.guidances.1.weight": 0.025,
        "system.guidance.guidances.1.settings.image_loss": True,
        "system.loss.lambda_sds": 1.0,
        "system.loss.lambda_sds_img": 0.00025,
        "system.loss.lambda_mask": 0.0,
        "system.loss.lambda_mask_bce": 100.0,
        "system.loss.lambda_normal_smooth": 1000.0,
        "system.regularized_views": "novel",
    },
    "unified-zero123-simple": {"system.guidance_type": "zero123-guidance", "system.guidance.guidance_scale": 5.0},
    "imagecondition": {"system.optimizer.name": "Adan", "system.loss.lambda_depth": [0, 0.0, 1.0, 10000]},
    "imagecondition_zero123nerf_refine": {"system_type": "dreamfusion-system", "data.eval_elevation_deg": 15.0},
    "zero123-geometry": {"system.geometry_type": "tetrahedra-sdf-grid", "data.random_camera.batch_size": 8},
}


def value_at(value, key):
    for part in key.split("."):
        value = (
            value[int(part)]
            if isinstance(value, list)
            else value[part]
            if isinstance(value, dict)
            else getattr(value, part)
        )
    return value


@pytest.mark.parametrize("name", MEANINGS)
def test_words_mean_what_they_mean_there(name):
    experiment = plan_of(name).experiment
    found = {key: value_at(experiment, key) for key in MEANINGS[name]}
    assert found == MEANINGS[name]


@pytest.mark.parametrize(
    ("name", "overrides", "key", "value"),
    [
        ("dreamfusion-sd", ["system.guidance.guidance_scale=50"], "system.guidance.guidance_scale", 50.0),
        ("dreamfusion-sd", ["system.prompt_processor.negative_prompt=ugly, blurry"], "system.guidance.negative_prompt", "ugly, blurry"),
        ("dreamfusion-sd", ["system.guidance.checkpoint=x/y"], "system.guidance.checkpoint", "x/y"),
        ("dreamfusion-sd", ["system.prompt_processor.use_perp_neg=True"], "system.guidance.perp_neg", True),
        ("dreamfusion-sd", ["data.batch_size=2", "data.n_val_views=4"], "data.batch_size", 2),
        ("sjc", ["system.loss.lambda_emptiness=[15000,10000.0,200000.0,15001]"], "system.loss.lambda_emptiness.0", 15000),
        ("sjc", ["system.optimizer.params.background.lr=0.05"], "system.optimizer.params.background.lr", 0.05),
        ("prolificdreamer", ["data.width=64", "data.height=64", "data.batch_size=1"], "data.width", 64),
        ("prolificdreamer", ["system.optimizer.params.guidance.lr=1e-5"], "system.guidance.lora_lr", 1e-5),
        ("magic123-coarse-sd", ["system.loss.lambda_sd=0.1"], "system.guidance.guidances.1.weight", 0.1),
        ("magic123-coarse-sd", ["system.loss.lambda_3d_sd=[0,0.5,1.0,100]"], "system.guidance.guidances.0.weight", [0, 0.5, 1.0, 100]),
        ("magic123-coarse-sd", ["system.guidance_3d.guidance_scale=3"], "system.guidance.guidances.0.settings.guidance_scale", 3.0),
        ("magic123-coarse-sd", ["system.loss.lambda_mask=50"], "system.loss.lambda_mask_bce", 50),
        ("magic3d-refine-sd", ["system.geometry_convert_override.isosurface_threshold=10."], "system.geometry_convert_override", {"isosurface_threshold": 10.0}),
        ("stable-zero123", ["system.exporter.context_type=cuda", "system.exporter.fmt=obj"], "system.exporter.fmt", "obj"),
        ("stable-zero123", ["system.geometry.isosurface_method=mc-cpu", "system.geometry.isosurface_resolution=256"], "system.exporter.isosurface_resolution", 256),
        ("stable-zero123", ["data.resolution_milestones=[100,200]", "system.loss.lambda_rgb=300"], "system.loss.lambda_rgb", 300),
    ],
)  # fmt: skip
def test_overrides_in_its_words_count(name, overrides, key, value):
    assert value_at(plan_of(name, *overrides).experiment, key) == value


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("dreamfusion-sd", "system.guidance_type=deep-floyd-guidance", "DeepFloyd IF is not supported"),
        ("dreamfusion-sd", "system.renderer.estimator=proposal", "estimator=proposal cannot be followed"),
        ("dreamfusion-sd", "system.guidance.token_merging=true", "tokens are not merged"),
        ("dreamfusion-sd", "system.prompt_processor.prompt=lib:corgi", "no prompt library"),
        ("dreamfusion-sd", "system.prompt_processor.use_prompt_debiasing=true", "prompts are taken as they are"),
        ("dreamfusion-sd", "system.prompt_processor.promt=x", r"Unknown key 'system\.prompt_processor\.promt'"),
        ("dreamfusion-sd", "system.loss.lambda_sdss=1", r"Unknown key 'system\.loss\.lambda_sdss'"),
        ("dreamfusion-sd", "system_type=fantasia3d-system", "threestudio's fantasia3d-system is not there"),
        ("dreamfusion-sd", "system.loss.lambda_normal_consistency=1", "is a loss of the mesh"),
        ("prolificdreamer", "system.guidance.guidance_scale_lora=2", "low-rank copy is not guided"),
        ("sjc", "system.loss.lambda_depth=10", "lambda_depth=10 cannot be followed"),
        ("sjc", "system.material.n_output_dims=3", "give both the same n_output_dims"),
    ],
)
def test_what_cannot_be_followed_is_refused(name, word, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(name, word)


def test_a_second_stage_takes_its_own_file_alone(tiny, tmp_path):
    overrides = ["--config", str(FILES["magic3d-refine-sd"]), *tiny("magic3d-refine-sd")]
    _, plan = plan_run(overrides[1], overrides[2:])
    assert plan.experiment.system.loss.lambda_orient == 0.0, "the first stage's 10 to 1000 are not inherited"
    assert plan.experiment.system.geometry.radius == 2.0


def test_a_run_resumes_and_exports_by_its_words(tiny, tmp_path):
    start = ["--config", str(FILES["unified-dreamfusion-sd"]), "--gpu", "0", f"exp_root_dir={tmp_path}", "tag=a", "use_timestamp=False"]  # fmt: skip
    assert main([*start, "--train", *tiny("unified-dreamfusion-sd")]) == 0
    last = tmp_path / "dreamfusion-sd" / "a" / "ckpts" / "last.ckpt"
    more = [f"resume={last}", "trainer.max_steps=3", "system.prompt_processor.prompt=a ball"]
    assert main([*start, "--train", *more]) == 0
    small = ["system.geometry.isosurface_resolution=24", "system.geometry.isosurface_method=mt"]
    overrides = [
        "system.exporter_type=mesh-exporter",
        "system.exporter.fmt=obj",
        "system.exporter.context_type=cuda",
        *small,
    ]
    assert main([*start, "--export", f"resume={last}", *overrides]) == 0
    assert list(last.parents[1].glob("export/*.obj"))


def test_notices_name_every_word_once():
    loaded = load_config(FILES["hifa"], [GIVEN["prompt"]])
    assert len(loaded.notices) == len(set(loaded.notices))
    assert OmegaConf.select(loaded.cfg, "system.prompt_processor") is None
    assert any("system.prompt_processor.prompt is system.guidance.prompt here" in n for n in loaded.notices)


def test_origins_tell_the_file_from_the_command_line():
    loaded = load_config(FILES["hifa"], [GIVEN["prompt"], "system.guidance.guidance_scale=20"])
    assert loaded.origins["system.guidance.guidance_scale"] == "command line"
    assert loaded.origins["system.guidance.prompt"] == "command line"
    assert loaded.origins["system.guidance.min_step_percent"] == str(FILES["hifa"])
