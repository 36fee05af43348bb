"""The folder of one run: its name, and records of configuration, versions and results."""

import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from zero123s.config.experiment import ExperimentConfig
from zero123s.config.options import make_paths_absolute
from zero123s.errors import OutputError
from zero123s.run.provenance import environment, git_state
from zero123s.runtime.files import explain_os_error, without_folders, write_text
from zero123s.runtime.processes import is_main_process

MAX_NAME = 100
"""Characters of a folder's name; file systems allow 255 bytes, and a letter may take four."""


def shell_safe(text: str) -> str:
    """Return `text` with everything but letters, digits, dot, dash and underscore replaced by one underscore."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:MAX_NAME].strip("_.-") or "run"


def default_tag(experiment: ExperimentConfig) -> str:
    """Return the tag, or the name of the run's input."""
    if experiment.tag:
        return shell_safe(experiment.tag)
    if prompt := getattr(experiment.data, "prompt", ""):
        return shell_safe(prompt)
    for key in ("image_path", "transforms_path"):
        path = getattr(experiment.data, key, None)
        if path:
            path = Path(path)
            return shell_safe(path.parent.name if path.stem == "transforms" else path.stem)
    return "run"


def run_path(experiment: ExperimentConfig, now: datetime | None = None) -> Path:
    """Return the folder that a new run would get; creates nothing, so another run may take it first (`new_run_dir`)."""
    paths = _run_paths(experiment, now)
    first = next(paths)
    if not experiment.use_timestamp:
        return first
    return first if not first.exists() else next((p for p in paths if not p.exists()), first)


def _run_paths(experiment: ExperimentConfig, now: datetime | None = None) -> Iterator[Path]:
    """Yield names for a run, best first: two runs in one second, or after a clock change, must not share a folder."""
    name = default_tag(experiment)
    if experiment.use_timestamp:
        name += f"@{now or datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(experiment.exp_root_dir) / shell_safe(experiment.name)
    yield folder / name
    if experiment.use_timestamp:
        yield from (folder / f"{name}-{n}" for n in range(2, 10_000))


@contextmanager
def new_run_dir(experiment: ExperimentConfig) -> Iterator[Path]:
    """Create the folder of a new run, unique if it has a timestamp; removed again if the block fails and it is empty.

    Of several processes that train together only the main one makes it.

    Raises:
        OutputError: it cannot be made.
    """
    if not is_main_process():
        yield run_path(experiment)
        return
    path, made = _make_run_dir(experiment)
    try:
        yield path
    except BaseException:
        with suppress(OSError):  # something was written, here or by another run
            for folder in made:
                folder.rmdir()
        raise


def _make_run_dir(experiment: ExperimentConfig) -> tuple[Path, list[Path]]:
    """Return the folder and all folders that were created for it, innermost first."""
    for path in _run_paths(experiment):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        try:
            path.mkdir(parents=True, exist_ok=not experiment.use_timestamp)
        except FileExistsError as error:
            if not path.is_dir():
                raise OutputError(f"The run folder '{path}' cannot be made: a file has its name.") from error
            continue
        except OSError as error:
            raise OutputError(f"The run folder '{path}' cannot be written: {explain_os_error(error)}.") from error
        return path, missing
    raise OutputError(f"The run folder '{run_path(experiment)}' cannot be made: all names of this second are taken.")


def check_writable(run_dir: Path) -> None:
    """Raise OutputError where a run folder cannot be made or written, as far as that shows without doing it."""
    nearest_folder = next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())
    if not nearest_folder.is_dir():
        raise OutputError(f"The run folder '{run_dir}' cannot be made: '{nearest_folder}' is a file.")
    if not os.access(nearest_folder, os.W_OK | os.X_OK):
        raise OutputError(f"The run folder '{run_dir}' cannot be written: no permission in '{nearest_folder}'.")


def plain(value: Any) -> Any:
    """Convert dataclasses, paths and tuples to what YAML and JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def resolved_yaml(experiment: ExperimentConfig) -> str:
    """Return the whole configuration with every default, for a repeated run."""
    return yaml.safe_dump(plain(experiment), sort_keys=False, allow_unicode=True)


def append_command(path: Path) -> None:
    """Add this process's command line to cmd.txt; raises OutputError."""
    log = path / "cmd.txt"
    earlier = log.read_text(encoding="utf-8") if log.exists() else ""
    write_text(log, earlier + shlex.join([Path(sys.executable).name, *sys.argv]) + "\n")


def create_run_dir(path: Path, experiment: ExperimentConfig) -> None:
    """Write config, versions and git state into the run folder; raises OutputError.

    A resumed run keeps what was there: a configuration that changed gets a number.
    """
    config = path / "config.yaml"
    written = replace(deepcopy(experiment), trial_dir=str(path.absolute()), overwrite=False)
    make_paths_absolute(written)  # the run may be resumed from another working folder
    text = resolved_yaml(written)
    if config.exists() and config.read_text(encoding="utf-8") != text:
        n = 1 + len(list(path.glob("config.before*.yaml")))
        write_text(path / f"config.before{n}.yaml", config.read_text(encoding="utf-8"))
    write_text(config, text)
    write_text(path / "env.txt", environment())
    git = git_state()
    write_text(path / "git.txt", "\n".join([git.note, git.status, git.diff]).rstrip() + "\n")


def read_run_record(path: Path) -> dict[str, Any]:
    """Return run.json of a run folder; empty if it is missing or damaged."""
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_run_record(path: Path, record: Mapping[str, Any]) -> None:
    """Merge `record` into run.json, its files relative to the run folder; raises OutputError."""
    merged = {**read_run_record(path), **without_folders(plain(record), path)}
    write_text(path / "run.json", json.dumps(merged, indent=2) + "\n")
