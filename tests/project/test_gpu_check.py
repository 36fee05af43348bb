"""The check for a machine with a GPU, run without one: parts end by themselves or at their limit, and results are kept."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # as where a script is started by its path
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Return a function that runs the check with these words and returns its exit code and the written results."""
    module = load("check")
    monkeypatch.syspath_prepend(FOLDER)

    def check(*words: str) -> tuple[int, dict]:
        monkeypatch.setattr(sys, "argv", ["check.py", "--out", str(tmp_path), "--device", "cpu", *words])
        code = module.main()
        return code, json.loads((tmp_path / "gpu_check.json").read_text())

    check.run_part, check.module = module.run_part, module
    return check


@pytest.mark.slow  # a start of ten seconds; the test of a part that hangs holds that parts fail alone
def test_a_failing_part_keeps_its_log(check):
    code, results = check("--small", "resume")
    assert code == 1
    assert "no such checkpoint" in results["resume"]["log"], "there was no recipe before"


def test_backends_are_listed_without_a_gpu(tmp_path):
    parts = load("parts")
    check = parts.Check(tmp_path, "cpu", small=True)
    assert parts.backends(check)["auto"]["hash_grid"] == "numba"
    assert "needs a CUDA device" in parts.vendors(check)["tinycudann"]


def test_a_part_that_hangs_ends_with_its_time(check, tmp_path):
    args = argparse.Namespace(device="cpu", small=False, out=tmp_path)
    assert check.run_part("recipe", args, limit=0.2)["failed"] == "not done after 0 s"


def test_parts_without_time_are_not_started(check):
    code, results = check("--minutes", "0.1", "recipe", "backends")
    assert code == 1
    assert all("not started" in results[part]["failed"] for part in ("recipe", "backends"))


def test_missing_packages_are_named_before_anything_begins(check, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(check.module, "missing_packages", lambda: ["diffusers", "omegaconf"])
    monkeypatch.setattr(sys, "argv", ["check.py", "--out", str(tmp_path / "out")])
    assert check.module.main() == 2
    assert "not installed here: diffusers, omegaconf; where there is a network" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_packages_that_are_too_large_are_refused(monkeypatch, tmp_path, capsys):
    prepare = load("prepare")
    source = tmp_path / "library"
    source.mkdir()
    (source / "kernel.cu").write_bytes(bytes(range(256)) * 4)
    monkeypatch.setattr(prepare, "fetch", lambda package, out, python: (out / package).write_bytes(b"0" * 1000))
    words = ["prepare.py", "--out", str(tmp_path / "out"), "--sources", str(source), "--limit-mb"]
    monkeypatch.setattr(sys, "argv", [*words, "1"])
    assert prepare.main() == 0
    assert (tmp_path / "out" / "library.tar.gz").is_file()
    monkeypatch.setattr(sys, "argv", [*words, "0.001"])
    assert prepare.main() == 1
    assert "leave the largest out" in capsys.readouterr().err
