"""The folder of one run: where things go, and what is written down about how they came to be."""

import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from zero123s.config.experiment import ExperimentConfig
from zero123s.errors import ConfigError
from zero123s.run.provenance import environment, git_state
from zero123s.runtime.files import write_text

LAST = ".last"
"""Names the run of an experiment that was started last: times of files tell that only while nobody sets the clock."""
MAX_NAME = 100
"""Characters of a folder's name; file systems end at 255 bytes, and a letter may take four."""


def shell_safe(text: str) -> str:
    """Return `text` with everything but letters, digits, dot, dash and underscore replaced by one underscore."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:MAX_NAME].strip("_.-") or "run"


def default_tag(experiment: ExperimentConfig) -> str:
    """Return the tag, or the name of what the run looks at."""
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
    """Return the folder a new run would get; creates nothing."""
    name = default_tag(experiment)
    if experiment.use_timestamp:
        name += f"@{now or datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(experiment.exp_root_dir) / shell_safe(experiment.name)
    if not experiment.use_timestamp:
        return folder / name
    # Two runs in one second, or a clock that was set back, must not share a folder.
    others = (f"{name}-{n}" for n in range(2, 1000))
    return folder / next((n for n in (name, *others) if not (folder / n).exists()), name)


def plain(value: Any) -> Any:
    """Return dataclasses, paths and tuples as what YAML and JSON know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def resolved_yaml(experiment: ExperimentConfig) -> str:
    """Return the whole configuration with every default, ready to be run again."""
    return yaml.safe_dump(plain(experiment), sort_keys=False, allow_unicode=True)


def append_command(path: Path) -> None:
    """Add this process's command line to cmd.txt; raises OutputError."""
    log = path / "cmd.txt"
    earlier = log.read_text(encoding="utf-8") if log.exists() else ""
    write_text(log, earlier + shlex.join([Path(sys.executable).name, *sys.argv]) + "\n")


def create_run_dir(path: Path, experiment: ExperimentConfig) -> None:
    """Write config, versions and git state into the run folder; raises OutputError if that is impossible.

    A resumed run keeps what was there: a configuration that changed gets a number.
    """
    config = path / "config.yaml"
    text = resolved_yaml(experiment)
    if config.exists() and config.read_text(encoding="utf-8") != text:
        n = 1 + len(list(path.glob("config.before*.yaml")))
        write_text(path / f"config.before{n}.yaml", config.read_text(encoding="utf-8"))
    write_text(config, text)
    write_text(path / "env.txt", environment())
    git = git_state()
    write_text(path / "git.txt", "\n".join([git.note, git.status, git.diff]).rstrip() + "\n")


def read_run_record(path: Path) -> dict[str, Any]:
    """Return run.json of a run folder; empty where there is none or it is damaged."""
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_run_record(path: Path, record: Mapping[str, Any]) -> None:
    """Merge `record` into run.json; raises OutputError."""
    write_text(path / "run.json", json.dumps({**read_run_record(path), **plain(record)}, indent=2) + "\n")


def known_checkpoints(experiment: ExperimentConfig) -> list[Path]:
    """Return the newest checkpoint of every run of this experiment's name, oldest run first.

    The run that was started last comes last even where the clock was set back since.
    """
    root = Path(experiment.exp_root_dir) / shell_safe(experiment.name)
    try:
        started_last = (root / LAST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        started_last = ""
    found = root.glob("*/ckpts/last.ckpt")
    return sorted(found, key=lambda p: (p.parent.parent.name == started_last, p.stat().st_mtime))


def remember_as_last(path: Path) -> None:
    """Note beside a run folder that its run was started last, for `resume=last`; raises OutputError."""
    write_text(path.parent / LAST, path.name + "\n", shared=True)


def _listed(experiment: ExperimentConfig) -> str:
    found = known_checkpoints(experiment)
    root = Path(experiment.exp_root_dir) / shell_safe(experiment.name)
    return f"; there are: {', '.join(str(p) for p in found[-5:])}" if found else f"; there is none below {root} yet"


def checkpoint_at(place: str) -> Path | None:
    """Return the checkpoint that a path means: the file itself, or the newest of a run folder; None if there is none."""
    path = Path(place).expanduser()
    return next((p for p in (path, path / "ckpts" / "last.ckpt", path / "last.ckpt") if p.is_file()), None)


def find_checkpoint(resume: str, experiment: ExperimentConfig) -> Path:
    """Return the checkpoint that `resume=` means: a file, a run folder, or `last` of this experiment's name.

    Raises:
        ConfigError: nothing there; lists the checkpoints there are.
    """
    if resume == "last":
        found = known_checkpoints(experiment)
        if found:
            return found[-1]
    elif (match := checkpoint_at(resume)) is not None:
        return match
    raise ConfigError(f"resume={resume}: no such checkpoint{_listed(experiment)}.")


def require_checkpoint(experiment: ExperimentConfig, mode: str) -> Path | None:
    """Return the checkpoint a mode goes on from, None for training from the start; raises ConfigError."""
    if experiment.resume:
        return find_checkpoint(experiment.resume, experiment)
    if mode == "train":
        return None
    raise ConfigError(f"--{mode} needs resume=<checkpoint, run folder or last>{_listed(experiment)}.")


def run_dir_of(checkpoint: Path, experiment: ExperimentConfig) -> Path:
    """Return the run folder a checkpoint lies in; a checkpoint from elsewhere gets a new one."""
    parent = checkpoint.resolve().parent
    if parent.name == "ckpts":
        return checkpoint.parent.parent
    return run_path(experiment)
