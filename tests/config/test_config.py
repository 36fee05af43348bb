from dataclasses import dataclass, field
from typing import Any

import pytest

from zero123s.config.experiment import parse_experiment
from zero123s.config.interpolation import resolve
from zero123s.config.load import load_config
from zero123s.config.parse import parse
from zero123s.errors import ConfigError


@dataclass
class Inner:
    rate: float = 0.5
    sizes: list[int] = field(default_factory=lambda: [1])


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    name: str = "x"
    weight: Any = 0.0


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_parse_fills_defaults_and_converts():
    parsed = parse(Outer, {"inner": {"rate": 1}}, "system")
    assert parsed == Outer(inner=Inner(rate=1.0))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"inner": {"rte": 1}}, r"Unknown key 'system\.inner\.rte'\. Did you mean 'system\.inner\.rate'\?"),
        ({"nmae": "y"}, r"Unknown key 'system\.nmae'\. Did you mean 'system\.name'\?"),
        ({"inner": {"rate": "fast"}}, r"system\.inner\.rate"),
        ({"inner": {"rate": [1, 2]}}, r"system\.inner\.rate"),
        ([1, 2], r"system: expected a section"),
    ],
)
def test_parse_names_the_key(section, message):
    with pytest.raises(ConfigError, match=message):
        parse(Outer, section, "system")


def test_command_line_overrides_profile_overrides_base(write):
    write("base.yaml", "name: base\nseed: 1\ntag: t\nprofiles: {cpu: {seed: 2, threads: 3}}\n")
    child = write("child.yaml", "base: base.yaml\nname: child\n")
    assert parse_experiment(load_config(child)).seed == 1
    loaded = load_config(child, ["threads=4"], "cpu")
    experiment = parse_experiment(loaded)
    assert (experiment.name, experiment.tag, experiment.seed, experiment.threads) == ("child", "t", 2, 4)
    assert loaded.origins["threads"] == "command line"
    assert loaded.origins["seed"].endswith("base.yaml (profile cpu)")


def test_another_scheduler_does_not_inherit_args(write):
    path = write("a.yaml", "name: run\nsystem: {scheduler: {name: LinearLR, args: {total_iters: 9}}}")
    same = load_config(path, ["system.scheduler.args.start_factor=1.0", "name=other"])
    assert same.cfg.system.scheduler.args == {"total_iters": 9, "start_factor": 1.0}
    assert same.notices == []
    loaded = load_config(path, ["system.scheduler.name=ConstantLR", "system.scheduler.args.factor=0.5"])
    assert loaded.cfg.system.scheduler.args == {"factor": 0.5}
    assert "the args of LinearLR are not inherited" in loaded.notices[0]


def test_changing_a_slot_type_drops_the_old_settings(write):
    path = write("a.yaml", "system: {geometry_type: a, geometry: {old: 1}}\n")
    loaded = load_config(path, ["system.geometry_type=b", "system.geometry.new=2"])
    assert loaded.cfg.system.geometry == {"new": 2}
    assert "geometry_type" in loaded.notices[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "expected 'key: value'"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: ${oc.env:HOME}\n", "not allowed"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        ("base: b.yaml\n", "circle"),
        ("trainer: {max_stps: 5}\n", r"'trainer\.max_stps'\. Did you mean 'trainer\.max_steps'\? \(set in"),
        ("trainer: {max_steps: 0}\n", "expected 1 to 1,000,000,000"),
        ("name: ${missing.key}\n", "name"),
    ],
)
def test_bad_files_get_one_sentence(write, text, message):
    path = write("b.yaml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        parse_experiment(load_config(path))
    assert "\n" not in str(caught.value)


def test_missing_file_and_bad_words(tmp_path, write):
    write("stable.yaml", "name: x\n")
    with pytest.raises(ConfigError, match=r"Did you mean 'stable\.yaml'"):
        load_config(tmp_path / "stabel.yaml")
    with pytest.raises(ConfigError, match="is not an override"):
        load_config(tmp_path / "stable.yaml", ["trainer.max_steps"])
    with pytest.raises(ConfigError, match="no profile 'gpu'"):
        load_config(tmp_path / "stable.yaml", [], "gpu")


def test_nothing_after_the_equals_sign_is_empty_text(write):
    path = write("d.yaml", "name: x\ntag: full\n")
    assert parse_experiment(load_config(path, ["tag="])).tag == ""
    assert parse_experiment(load_config(path, ["tag=a="])).tag == "a="


def test_threestudio_arithmetic_takes_schedules(write):
    path = write("c.yaml", "a: [100, 0.0, 5.0, 200]\nname: ${cmaxgt0:${a}}\ntag: ${rmspace:${basename:x/y z.png},_}\n")
    cfg = resolve(load_config(path).cfg)
    assert (cfg.name, cfg.tag) == (True, "y_z.png")
