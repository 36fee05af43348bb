"""What an operator offers and a visitor chooses."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from zero123s.errors import CheckpointError, ConfigError
from zero123s.mesh.writers import WRITERS
from zero123s.run.plan import plan_run
from zero123s.web.settings import (
    QUALITIES,
    Choice,
    Quality,
    Settings,
    check_choice,
    check_settings,
    draw_task,
    read_models,
    read_qualities,
    run_overrides,
)

CONFIG = "configs/stable-zero123.yaml"


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(tmp_path, CONFIG, "cpu")


def planned(settings: Settings, choice: Choice, folder: Path):
    arguments = run_overrides(settings, choice, folder / "in put.png", folder / "0123" / "run")
    return plan_run(CONFIG, arguments, "cpu")[1].experiment


def test_a_choice_becomes_a_run_folder(settings, tmp_path):
    run = planned(settings, Choice(12.0, "auto", "normal", 7), tmp_path)
    assert (run.data.image_path, run.data.default_elevation_deg, run.seed) == (str(tmp_path / "in put.png"), 12.0, 7)
    assert (run.exp_root_dir, run.name, run.tag, run.use_timestamp) == (str(tmp_path), "0123", "run", False)
    assert (run.trainer.max_steps, run.trainer.val_check_interval) == (120, 12)
    assert run.system.exporter.formats == list(WRITERS), "every format there is"


def test_qualities_change_steps_rates_and_mesh(settings, tmp_path):
    quick = planned(settings, Choice(0.0, "auto", "quick"), tmp_path)
    best = planned(settings, Choice(0.0, "auto", "best"), tmp_path)
    assert (quick.trainer.max_steps, quick.system.scheduler.args["total_iters"]) == (40, 40)
    assert (best.trainer.max_steps, best.system.scheduler.args["total_iters"]) == (240, 240)
    assert quick.system.exporter.max_faces < best.system.exporter.max_faces


def test_visitors_choices_override_the_operators_words(settings, tmp_path):
    settings = replace(settings, overrides=("system.loss.lambda_sds=0", "trainer.max_steps=20", "seed=99"))
    run = planned(settings, Choice(0.0, "auto", "normal", 1), tmp_path)
    assert (run.system.loss.lambda_sds, run.trainer.max_steps, run.seed) == (0, 20, 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "/etc/passwd"}, "no model '/etc/passwd'"),
        ({"quality": "quick trainer.max_steps=1"}, "no quality"),
        ({"elevation_deg": math.nan}, "none; give -90 to 90"),
        ({"elevation_deg": 91}, "none; give -90 to 90"),
        ({"elevation_deg": "5 seed=3"}, "must be a number"),
        ({"seed": -1}, "whole number"),
        ({"seed": 1.5}, "whole number"),
    ],
)
def test_visitors_can_choose_nothing_else(settings, change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_choice(settings, replace(Choice(5.0, "auto", "quick"), **change))


def test_every_setting_is_checked_before_opening(settings):
    check_settings(settings)
    wrong = replace(settings, qualities={"fast": Quality(1.0, {"system.exporter.max_facse": 3})})
    with pytest.raises(ConfigError, match=r"quality 'fast': .*max_facse.*max_faces"):
        check_settings(wrong)


def test_qualities_of_a_file(tmp_path):
    path = tmp_path / "q.yaml"
    path.write_text("draft: {steps: 0.1, about: a look, overrides: {system.exporter.max_faces: 500}}\n")
    assert read_qualities(path) == {"draft": Quality(0.1, {"system.exporter.max_faces": 500}, "a look")}


@pytest.mark.parametrize("text", ["", "[1]", "a: 3", "a: {steps: 0}", "a: {step: 1}", "a: {overrides: [x]}", "a: {"])
def test_wrong_quality_files_are_reported(tmp_path, text):
    path = tmp_path / "q.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"q\.yaml"):
        read_qualities(path)


def test_models_have_names_and_exist():
    bundled = "load/zero123/small_zero123.safetensors"
    assert read_models([]) == {"auto": "auto"}
    assert read_models([f"small={bundled}"])["small"].endswith(bundled)
    assert list(read_models([bundled])) == ["small_zero123"]
    with pytest.raises(CheckpointError, match="does not exist"):
        read_models(["x=/nowhere.ckpt"])
    with pytest.raises(ConfigError, match="name of its own"):
        read_models([f"a={bundled}", f"a={bundled}"])


def test_prompts_only_where_the_operator_named_a_pipeline(settings):
    with pytest.raises(ConfigError, match="--draw-with"):
        draw_task(settings, "a dog", 0)
    settings = replace(settings, text_to_image_model="some/pipeline")
    with pytest.raises(ConfigError, match="3 to 300"):
        draw_task(settings, "x" * 400, 0)
    task = draw_task(settings, 'a "round"\n dog seed=4', 3)
    run = plan_run(task["config"], task["words"], "none")[1].experiment
    assert (run.data.prompt, run.data.text_to_image.model, run.seed) == ('a "round" dog seed=4', "some/pipeline", 0)


def test_the_default_qualities_are_those_of_the_docs():
    assert list(QUALITIES) == ["quick", "normal", "best"]
    text = Path("docs/web.md").read_text(encoding="utf-8")
    for name in QUALITIES:
        assert f"`{name}`" in text


@pytest.mark.parametrize("value", ["abc", "1.5", "nan", "inf", ""])
def test_a_seed_must_be_a_whole_number(value):
    from zero123s.web.settings import read_whole_number

    assert read_whole_number("seed", "7") == read_whole_number("seed", 7.0) == 7
    with pytest.raises(ConfigError, match="seed="):
        read_whole_number("seed", value)
