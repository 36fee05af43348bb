"""The folder of one run: where things go, and what is written down about how they came to be."""

import dataclasses
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from zero123s import __version__
from zero123s.errors import ConfigError
from zero123s.experiment import ExperimentConfig

PACKAGES = ("torch", "pytorch-lightning", "omegaconf", "diffusers", "transformers", "numpy", "trimesh")


def shell_safe(text: str) -> str:
    """Return `text` with everything but letters, digits, dot, dash and underscore replaced by one underscore."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_.") or "run"


def default_tag(experiment: ExperimentConfig) -> str:
    """Return the tag, or the name of what the run looks at."""
    if experiment.tag:
        return shell_safe(experiment.tag)
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
    return Path(experiment.exp_root_dir) / shell_safe(experiment.name) / name


def write_text_atomic(path: Path, text: str) -> None:
    """Write a file whole or not at all; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


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


def create_run_dir(path: Path, experiment: ExperimentConfig) -> None:
    """Make the folder and write config, command line and versions into it; raises ConfigError if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path / "config.yaml", resolved_yaml(experiment))
        write_text_atomic(path / "cmd.txt", shlex.join([Path(sys.executable).name, *sys.argv]) + "\n")
        write_text_atomic(path / "env.txt", environment())
    except OSError as error:
        raise ConfigError(f"The run folder '{path}' cannot be written ({error.strerror}); set exp_root_dir.") from error


def environment() -> str:
    """Return the versions that a result depends on, one a line."""
    lines = [
        f"zero123s {__version__}",
        f"python {platform.python_version()}",
        f"system {platform.system()} {platform.machine()}",
    ]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package} not installed")
    return "\n".join(lines) + "\n"


def write_run_record(path: Path, record: Mapping[str, Any]) -> None:
    """Merge `record` into run.json."""
    file = path / "run.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    write_text_atomic(file, json.dumps({**known, **plain(record)}, indent=2) + "\n")


def find_checkpoint(resume: str, experiment: ExperimentConfig) -> Path:
    """Return the checkpoint that `resume=` means: a file, a run folder, or `last` of this experiment's name.

    Raises:
        ConfigError: nothing there; lists the checkpoints there are.
    """
    root = Path(experiment.exp_root_dir) / shell_safe(experiment.name)
    found = sorted(root.glob("*/ckpts/last.ckpt"), key=lambda p: p.stat().st_mtime)
    if resume == "last":
        if found:
            return found[-1]
    else:
        path = Path(resume)
        candidates = [path, path / "ckpts" / "last.ckpt"]
        match = next((p for p in candidates if p.is_file()), None)
        if match:
            return match
    listed = "; there are: " + ", ".join(str(p) for p in found[-5:]) if found else "; there is none yet"
    raise ConfigError(f"resume={resume}: no such checkpoint below {root}{listed}.")
