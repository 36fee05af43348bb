"""`~` and relative paths, in YAML files, overrides and flags: expanded once, and written down as what they became."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tiny_system
import yaml
from PIL import Image

from zero123s.commands.explain import all_slots
from zero123s.commands.launch import main
from zero123s.commands.main import main as zero123s
from zero123s.config.experiment import ExperimentConfig
from zero123s.config.options import PATH, walk
from zero123s.config.parse import parse
from zero123s.diffusion.novel_views import ViewsConfig


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


def test_a_home_folder_run_is_one_run(home):
    (home / "t.yaml").write_text(tiny_system.CONFIG + "exp_root_dir: ~/outs\n")
    assert main(["--config", "~/t.yaml", "--train"]) == 0
    run = home / "outs" / "tiny" / "run"
    assert {"config.yaml", "run.json", "ckpts", "csv_logs", "tb_logs"} <= {p.name for p in run.iterdir()}
    assert yaml.safe_load((run / "config.yaml").read_text())["exp_root_dir"] == str(home / "outs")
    assert not Path("~").exists()
    assert main(["--config", "~/t.yaml", "--train", "resume=~/outs/tiny/run", "trainer.max_steps=6"]) == 0
    assert not Path("~").exists()


def test_a_base_file_may_lie_in_home(home):
    (home / "common.yaml").write_text(tiny_system.CONFIG)
    Path("t.yaml").write_text("base: ~/common.yaml\nexp_root_dir: out\n")
    assert main(["--config", "t.yaml", "--train"]) == 0


def test_a_run_goes_on_from_another_working_folder(home, tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(tiny_system.CONFIG)
    assert main(["--config", "tiny.yaml", "--train", "exp_root_dir=out"]) == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    run = "../out/tiny/run"
    assert main(["--config", f"{run}/config.yaml", "--train", f"resume={run}", "trainer.max_steps=6"]) == 0
    assert list(Path().iterdir()) == []
    config = yaml.safe_load((tmp_path / "out" / "tiny" / "run" / "config.yaml").read_text())
    assert config["exp_root_dir"] == str(tmp_path / "out")


def test_prepare_reads_and_writes_below_the_home_folder(home):
    photo = np.full((64, 96, 3), 230, np.uint8)
    photo[16:48, 30:60] = (200, 40, 30)
    Image.fromarray(photo).save(home / "p.png")
    assert zero123s(["prepare", "~/p.png", "--out", "~/q.png", "--no-elevation", "--size", "64"]) == 0
    assert (home / "q.png").is_file()
    assert not Path("~").exists()


NAMES_OF_PATHS = ("path", "checkpoint", "model", "model_config", "config", "root", "latents", "autoencoder", "lpips",
                  "exp_root_dir", "trial_dir", "resume", "front", "left", "back", "right", "geometry_convert_from", "out")  # fmt: skip
NO_PATHS = ("data.weights.", "trainer.", "checkpoint.", "prompt_")


CONFIGS = [
    cls.Config
    for registry in all_slots().values()
    for cls in map(registry.get, registry)
    if cls.__module__.startswith("zero123s.")
]


@pytest.mark.parametrize("config", [ExperimentConfig, ViewsConfig, *CONFIGS], ids=lambda c: c.__qualname__)
def test_every_key_of_a_path_is_expanded(config, home):
    for key, f, _ in walk(config()):
        name = key.rsplit(".", 1)[-1]
        if name.endswith(NAMES_OF_PATHS) and f.type in (str, str | None) and not key.startswith(NO_PATHS):
            assert PATH in f.metadata, f"{config.__qualname__}.{key} should be option(path=True)"
        if PATH in f.metadata:
            *above, last = key.split(".")
            section: dict = {last: "~/x"}
            for part in reversed(above):
                section = {part: section}
            needed = {f.name: "x" for f in fields(config) if f.default == "???"}
            assert {k: v for k, _, v in walk(parse(config, {**needed, **section}))}[key] == str(home / "x")
