"""Which checkpoint a run resumes from, and which run folder it uses."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zero123s.callbacks.checkpoints import LAST, CheckpointHead, RunIdentity, checkpoint_files, read_head
from zero123s.config.experiment import ExperimentConfig
from zero123s.errors import CheckpointError, ConfigError
from zero123s.run.folder import new_run_dir, plain, read_run_record, run_path, shell_safe
from zero123s.runtime.files import user_path, write_text
from zero123s.runtime.processes import print_rank_zero

CHECKPOINTS = "ckpts"
STARTED_LAST = ".last"
"""Names the run of an experiment that was started last; file times are unreliable when the clock is set back."""
WRITTEN = (
    "ckpts", "csv_logs", "export", "input", "save", "tb_logs", "wandb", "cmd.txt", "config.yaml", "config.before*.yaml",
    "env.txt", "error.txt", "git.txt", "log.txt", "metrics.json", "profile*", "report.html", "run.json",
)  # fmt: skip
"""Files that runs and evaluations write into a run folder; nothing else is ever deleted."""


# ------------------------------------------------------------ the newest checkpoint


def newest_checkpoint(run_dir: Path) -> Path | None:
    """Return the latest checkpoint of a run folder; None if there is none.

    Sessions are compared first, then steps; names and times, which copying changes, do not count. A file that is not
    whole is passed over with a note.

    Raises:
        ConfigError: there are checkpoints of several runs, and run.json names none of them.
    """
    return _newest(run_dir / CHECKPOINTS, read_run_record(run_dir).get("run_id"))


def _newest(folder: Path, run_id: str | None) -> Path | None:
    files = checkpoint_files(folder)
    if len(files) <= 1:
        return files[0] if files else None
    heads, damaged = _read_heads(files)
    for error in damaged:
        print_rank_zero(f"note: passed over: {error}")
    if not heads:
        return files[-1]  # the reader raises the error
    own = [head for head in heads if head.run_id == run_id] or heads
    if len({head.run_id for head in own}) > 1:
        raise ConfigError(
            f"'{folder}' holds checkpoints of several runs, and no run.json says whose folder it is; name one: "
            f"{', '.join(f'resume={head.path}' for head in own)}."
        )
    newest = max(own, key=lambda head: (head.session, head.step, head.path.name == LAST))
    if newest.run_id is None and sum(head.path.name.startswith("last") for head in own) > 1:
        print_rank_zero(
            f"note: '{folder}' holds checkpoints of an earlier version, perhaps of several runs; going on from "
            f"{newest.path}, step {newest.step}. Name another with resume=FILE."
        )
    return newest.path


def _read_heads(files: list[Path]) -> tuple[list[CheckpointHead], list[CheckpointError]]:
    heads: list[CheckpointHead] = []
    damaged: list[CheckpointError] = []
    for path in files:
        try:
            heads.append(read_head(path))
        except CheckpointError as error:
            damaged.append(error)
    return heads, damaged


def identity_of(run_dir: Path, checkpoint: Path | None) -> RunIdentity:
    """Return the identity for new checkpoints of a run folder: the resumed checkpoint's run, or a new one.

    Raises:
        ConfigError: the checkpoint lies in the folder of another run.
        CheckpointError: the checkpoint is damaged.
    """
    if checkpoint is None:
        return RunIdentity(secrets.token_hex(8), 1)
    head = read_head(checkpoint)
    run_id = read_run_record(run_dir).get("run_id")
    if head.run_id and run_id and head.run_id != run_id and not starts_new_run(run_dir, checkpoint):
        raise ConfigError(
            f"'{checkpoint}' was written by another run than the one that {run_dir / 'run.json'} describes; move it "
            "out of this folder to start a run of its own from it, or resume another checkpoint."
        )
    sessions = [h.session for h in _read_heads(checkpoint_files(run_dir / CHECKPOINTS))[0]]
    return RunIdentity(head.run_id or run_id or secrets.token_hex(8), 1 + max([head.session, *sessions]))


# ------------------------------------------------------------ what `resume=` means


def known_checkpoints(experiment: ExperimentConfig) -> list[Path]:
    """Return one checkpoint of every run with this experiment's name, oldest run first.

    The run that was started last comes last even where the clock was set back since.
    """
    root = Path(experiment.exp_root_dir) / shell_safe(experiment.name)
    try:
        started_last = (root / STARTED_LAST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        started_last = ""
    latest = [max(files, key=_changed) for run in root.glob("*") if (files := checkpoint_files(run / CHECKPOINTS))]
    return sorted(latest, key=lambda p: (p.parent.parent.name == started_last, _changed(p)))


def _changed(path: Path) -> tuple[float, bool]:
    return path.stat().st_mtime, path.name == LAST


def record_last_started(path: Path) -> None:
    """Record next to a run folder that its run was started last, for `resume=last`; raises OutputError."""
    write_text(path.parent / STARTED_LAST, path.name + "\n", shared=True)


def _listed(experiment: ExperimentConfig) -> str:
    found = known_checkpoints(experiment)
    root = Path(experiment.exp_root_dir) / shell_safe(experiment.name)
    return f"; there are: {', '.join(str(p) for p in found[-5:])}" if found else f"; there is none below {root} yet"


def checkpoint_at(place: str) -> Path | None:
    """Return the checkpoint for a path: the file itself, or the latest of a run folder; None if there is none."""
    path = user_path(place)
    if path.is_file():
        return path
    if path.name == CHECKPOINTS:
        return newest_checkpoint(path.parent)
    return newest_checkpoint(path) or _newest(path, None)


def find_checkpoint(resume: str, experiment: ExperimentConfig) -> Path:
    """Return the checkpoint for `resume=`: a file, a run folder, or `last` of this experiment's name.

    Raises:
        ConfigError: nothing there; lists the checkpoints there are.
    """
    if resume == "last":
        found = known_checkpoints(experiment)
        if found:
            return newest_checkpoint(found[-1].parent.parent) or found[-1]
    elif (match := checkpoint_at(resume)) is not None:
        return match
    raise ConfigError(f"resume={resume}: no such checkpoint{_listed(experiment)}.")


def require_checkpoint(experiment: ExperimentConfig, mode: str) -> Path | None:
    """Return the checkpoint that a mode starts from, None for training from the start; raises ConfigError."""
    if experiment.resume:
        return find_checkpoint(experiment.resume, experiment)
    if mode == "train":
        return None
    raise ConfigError(f"--{mode} needs resume=<checkpoint, run folder or last>{_listed(experiment)}.")


def run_dir_around(checkpoint: Path) -> Path | None:
    """Return the run folder that contains a checkpoint, None for one outside of any.

    The path as it was given comes before what links make of it: a run's `ckpts` may itself be a link to another disk.
    """
    for path in (checkpoint, checkpoint.resolve()):
        if path.parent.name == CHECKPOINTS:
            return path.parent.parent
    return None


def run_dir_of(checkpoint: Path | None, experiment: ExperimentConfig) -> Path:
    """Return the run folder that contains a checkpoint, or the one a new run would get; creates nothing."""
    return (checkpoint and run_dir_around(checkpoint)) or run_path(experiment)


@contextmanager
def run_dir_for(checkpoint: Path | None, experiment: ExperimentConfig) -> Iterator[Path]:
    """Yield the run folder that contains a checkpoint, or create one for a new run, as `new_run_dir`.

    Raises:
        ConfigError: another run has used the folder.
        OutputError: it cannot be made.
    """
    own = run_dir_around(checkpoint) if checkpoint else None
    if own is not None:
        yield own
        return
    refuse_other_run(run_path(experiment), experiment.overwrite)
    with new_run_dir(experiment) as run_dir:
        yield run_dir


# ------------------------------------------------------------ a folder that another run has used


def starts_new_run(run_dir: Path, checkpoint: Path | None) -> bool:
    """Tell whether a run starts in a folder of its own rather than resuming in the checkpoint's folder."""
    own = run_dir_around(checkpoint) if checkpoint else None
    return own is None or not own.exists() or not run_dir.exists() or not own.samefile(run_dir)


def refuse_other_run(run_dir: Path, overwrite: bool) -> None:
    """Raise ConfigError if a new run would overwrite another's checkpoints or exports, unless requested."""
    if overwrite or not (checkpoint_files(run_dir / CHECKPOINTS) or any(run_dir.glob("export/*"))):
        return
    record = read_run_record(run_dir)
    known = ", ".join(f"{key} {record[key]}" for key in ("state", "step", "started") if key in record)
    raise ConfigError(
        f"The run folder '{run_dir}' holds another run{f' ({known})' if known else ''}: go on with that one with "
        f"resume={run_dir}, give this one another tag=, or clear the folder with overwrite=true."
    )


def clear_run_dir(run_dir: Path, experiment: ExperimentConfig) -> None:
    """Delete the output of an earlier run from a folder, except files that the new run's settings name."""
    named = {Path(text).absolute() for text in _texts(plain(experiment)) if "/" in text and len(text) < 4096}
    for pattern in WRITTEN:
        for path in run_dir.glob(pattern):
            if path.is_dir():
                for child in path.iterdir():
                    if child.absolute() not in named:
                        _delete(child)
            elif path.absolute() not in named:
                path.unlink()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value
