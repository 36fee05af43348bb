"""The run folder: its name, the source it records, and errors when it cannot be written."""

import re
import subprocess
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
import tiny_system
from hypothesis import given
from hypothesis import strategies as st

from zero123s.config.experiment import ExperimentConfig
from zero123s.errors import ConfigError, OutputError
from zero123s.run.folder import (
    new_run_dir,
    read_run_record,
    run_path,
    shell_safe,
    write_run_record,
)
from zero123s.run.provenance import environment, git_state
from zero123s.run.resume import find_checkpoint, record_last_started, require_checkpoint
from zero123s.runtime.files import replacing

SAFE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@given(st.text(max_size=300))
def test_names_are_safe_in_shells_and_files(text):
    name = shell_safe(text)
    assert name
    assert not set(name) - SAFE
    assert name[0] not in "-."
    assert len(name.encode()) <= 100
    assert shell_safe(name) == name


def test_the_run_folder_is_named_after_its_input():
    experiment = ExperimentConfig(name="my run", data=type("D", (), {"image_path": "a/b c(1).png"})())
    assert str(run_path(experiment, datetime(2024, 1, 2, 3, 4, 5))) == "outputs/my_run/b_c_1@20240102-030405"
    experiment.tag, experiment.use_timestamp = unicodedata.lookup("GREEK SMALL LETTER ALPHA") + "x y", False
    assert run_path(experiment).name == "x_y"


def git(folder, *overrides):
    subprocess.run(["git", "-C", str(folder), *overrides], check=True, capture_output=True)


def test_git_state_records_commit_changes_and_their_absence(tmp_path, monkeypatch):
    assert git_state(tmp_path).commit is None
    git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first")
    clean = git_state(tmp_path)
    assert (len(clean.commit), clean.status, clean.diff) == (40, "", "")
    (tmp_path / "a.txt").write_text("two\n")
    dirty = git_state(tmp_path)
    assert dirty.status
    assert "+two" in dirty.diff
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path).note == "git is not installed"


def test_the_environment_names_versions():
    assert "torch " in environment()
    assert "omegaconf 2" in environment()


def test_a_failed_write_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path, "w") as file:
        file.write(f"new {1 / 0}")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]
    with pytest.raises(OutputError, match="cannot be written"), replacing(path / "below" / "x") as file:
        pass


def test_simultaneous_runs_all_note_themselves(tmp_path):
    # Two workers of a batch share one experiment folder; one took the other's temporary file away.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record_last_started(tmp_path / f"run{n}"), range(400)))
    assert re.fullmatch(r"run\d+\n", (tmp_path / ".last").read_text())
    assert [p.name for p in tmp_path.iterdir()] == [".last"]


def test_a_damaged_record_does_not_stop_a_run(tmp_path):
    (tmp_path / "run.json").write_text("{half")
    assert read_run_record(tmp_path) == {}
    write_run_record(tmp_path, {"state": "training"})
    assert read_run_record(tmp_path) == {"state": "training"}


def test_resume_finds_the_newest_and_lists_runs(tmp_path):
    experiment = ExperimentConfig(name="n", exp_root_dir=str(tmp_path))
    for tag in ("b", "a"):
        path = tmp_path / "n" / tag / "ckpts" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
    assert find_checkpoint("last", experiment).parts[-3] == "a"
    assert find_checkpoint(str(tmp_path / "n" / "b"), experiment).parts[-3] == "b"
    with pytest.raises(ConfigError, match=r"there are: .*b/ckpts/last\.ckpt, .*a/ckpts/last\.ckpt"):
        find_checkpoint("c", experiment)
    with pytest.raises(ConfigError, match=r"--export needs resume=.*there are"):
        require_checkpoint(experiment, "export")
    assert require_checkpoint(experiment, "train") is None


def test_simultaneous_runs_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("zero123s.run.folder.datetime", _OneMoment)
    overrides = ("use_timestamp=true", "system.seconds_per_step=0.05")
    with ThreadPoolExecutor(4) as pool:
        codes = list(
            pool.map(lambda n: tiny_system.launch(tmp_path / f"{n}", *overrides, out=tmp_path / "out"), range(4))
        )
    assert codes == [0] * 4
    names = sorted(p.name for p in (tmp_path / "out" / "tiny").iterdir() if p.is_dir())
    assert names == [f"run@20240102-030405{suffix}" for suffix in ("", "-2", "-3", "-4")]
    assert all((tmp_path / "out" / "tiny" / name / "ckpts" / "last.ckpt").is_file() for name in names)


class _OneMoment(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 1, 2, 3, 4, 5)


def test_the_folder_of_a_refused_run_is_removed(tmp_path):
    experiment = ExperimentConfig(name="n", exp_root_dir=str(tmp_path / "a" / "b"))

    def fail(write):
        with new_run_dir(experiment) as folder:
            if write:
                (folder / "input.png").touch()
            raise ConfigError("no such model")

    with pytest.raises(ConfigError):
        fail(write=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError):
        fail(write=True)
    assert len(list(tmp_path.rglob("input.png"))) == 1, "what was written is kept"


def test_shared_files_name_no_local_folder(tmp_path):
    run = tmp_path / "somebody" / "outs" / "run"
    record = {
        "files": {"glb": run / "export" / "model.glb"},
        "model": {"path": "/home/somebody/load/model.ckpt", "sha256": "ab"},
        "hub": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "error": "ImageError: '/home/somebody/my cat.png' does not exist; see https://example.org/a.",
        "warnings": [f"look at '{run}/input/steps.png'"],
        "seconds": 1.5,
    }
    write_run_record(run, record)
    assert "somebody" not in (run / "run.json").read_text()
    written = read_run_record(run)
    assert written["files"] == {"glb": "export/model.glb"}
    assert written["model"] == {"path": "model.ckpt", "sha256": "ab"}
    assert written["hub"] == record["hub"]
    assert written["error"] == "ImageError: 'my cat.png' does not exist; see https://example.org/a."
    assert written["warnings"] == ["look at 'input/steps.png'"]
    assert written["seconds"] == 1.5
