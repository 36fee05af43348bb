"""Checkpoints that are written atomically and contain everything a resumed run needs."""

import os
import random
import shutil
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import CheckpointIO

from zero123s.config.experiment import CheckpointConfig
from zero123s.errors import CheckpointError
from zero123s.runtime.files import replacing

STATES = "random_states"
RUN = "run"
LAST = "last.ckpt"


@dataclass(frozen=True)
class RunIdentity:
    """Identifies a run, in its checkpoints and in run.json."""

    run_id: str
    """Random digits, drawn when the run starts at step 0."""
    session: int
    """Number of times the run has been started: checkpoints of a later session are newer, regardless of their step."""


@dataclass(frozen=True)
class CheckpointHead:
    """A checkpoint's metadata, without its weights."""

    path: Path
    step: int
    run_id: str | None
    """None: written before runs had an identity."""
    session: int


def read_head(path: Path) -> CheckpointHead:
    """Read a checkpoint's step and run, without its weights; raises CheckpointError for a damaged or foreign file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        run = state.get(RUN) or {}
        return CheckpointHead(path, int(state["global_step"]), run.get("run_id"), int(run.get("session", 0)))
    except Exception as error:  # a cut archive, a foreign pickle, another content: each fails in a way of its own
        raise CheckpointError(f"'{path}' is not a readable checkpoint of a run ({type(error).__name__}).") from error


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder by name, without partial files, dangling links and hidden files."""
    return sorted(p for p in folder.glob("*.ckpt") if p.is_file() and not p.name.startswith("."))


class AtomicCheckpointIO(CheckpointIO):
    """Writes to a temporary file, syncs and renames; reads without running pickled code and verifies every checksum."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; a previous file of that name stays until the new one is complete. Raises OutputError."""
        with replacing(Path(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # torch's zip writer hides the reason that the file object gave.
                reason = error.__cause__ or error.__context__
                raise (reason if isinstance(reason, OSError) else OSError(str(error).splitlines()[0])) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint; raises CheckpointError for a file that is damaged or of another program."""
        check_checksums(Path(path))
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle.UnpicklingError and whatever a foreign pickle raises
            raise CheckpointError(
                f"'{path}' is not a readable checkpoint of a run ({type(error).__name__})."
            ) from error
        if not isinstance(state, dict) or not {"state_dict", "global_step"} <= state.keys():
            raise CheckpointError(
                f"'{path}' is a file of torch, but no checkpoint of a run; resume= needs one from a run's ckpts/ folder "
                "(a Zero123 model belongs in system.guidance.checkpoint)."
            )
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint that a newer one replaces."""
        Path(path).unlink(missing_ok=True)


def check_checksums(path: Path) -> None:
    """Verify the CRC-32 of every record of a checkpoint; raises CheckpointError for a damaged file.

    torch writes the checksums and does not verify them when it reads.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError as error:
        raise CheckpointError(f"The checkpoint '{path}' cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # zipfile raises many kinds for a damaged directory
        raise CheckpointError(
            f"'{path}' is not a checkpoint of a run, or it is cut short ({type(error).__name__}); an earlier one may lie "
            f"next to it in {path.parent}."
        ) from error
    if damaged is not None:
        raise CheckpointError(
            f"The checkpoint '{path}' is damaged: the checksum of its record '{damaged}' is wrong; an earlier one may "
            f"lie next to it in {path.parent}."
        )


class Checkpoints(Checkpoint):
    """Writes `last.ckpt`, always replaced, and keeps the newest checkpoints under the name of their step.

    Lightning's ModelCheckpoint counts `last-v1.ckpt`, `last-v2.ckpt` up where a file of that name is none of its own,
    as after a run folder was moved.

    Args:
        folder: where they go.
        cfg: how often, and how many are kept.
        identity: the run, written into each.
        resumed: the checkpoint that this process resumed from; never deleted by it.
    """

    def __init__(self, folder: Path, cfg: CheckpointConfig, identity: RunIdentity, resumed: Path | None = None) -> None:
        self.folder = folder
        self.cfg = cfg
        self.identity = identity
        self.resumed = resumed
        self.latest = resumed
        """The newest good checkpoint of this run, to go back to."""
        self._step = 0
        self._by_step: dict[Path, int] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the checkpoints of earlier sessions."""
        # Of several processes, the main one's folder counts.
        self.folder, self.latest = trainer.strategy.broadcast((self.folder, self.latest))
        self._step = trainer.global_step
        if not trainer.is_global_zero:
            return
        for half in self.folder.glob(".*.ckpt.part"):
            half.unlink(missing_ok=True)
        for path in checkpoint_files(self.folder):
            if path.name != LAST and path != self.resumed and (step := self._own_step(path)) is not None:
                self._by_step[path] = step

    def _own_step(self, path: Path) -> int | None:
        """Return the step of an earlier checkpoint of this run; None for one of another run, or of a later step."""
        try:
            head = read_head(path)
        except CheckpointError:
            return None
        return head.step if head.run_id == self.identity.run_id and head.step <= self._step else None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the run's identity."""
        checkpoint[RUN] = asdict(self.identity)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save every n steps, once per step."""
        step = trainer.global_step
        if step == self._step or step % self.cfg.every_n_train_steps:
            return
        self._step = step
        if self.cfg.save_top_k:
            named = self.folder / f"epoch={trainer.current_epoch}-step={step}.ckpt"
            trainer.save_checkpoint(named)
            self.latest = named
            self._by_step[named] = step
        if self.cfg.save_last == "link" and self.cfg.save_top_k:
            if trainer.is_global_zero:
                _replace_by_link(self.folder / LAST, named.name)
        elif self.cfg.save_last:
            self.save_last(trainer)
        self._delete_old(trainer)

    def save_last(self, trainer: pl.Trainer) -> None:
        """Write the current state as last.ckpt."""
        trainer.save_checkpoint(self.folder / LAST)
        self.latest = self.folder / LAST

    def _delete_old(self, trainer: pl.Trainer) -> None:
        if self.cfg.save_top_k < 0:
            return
        by_age = sorted(self._by_step, key=lambda path: self._by_step[path])
        for path in by_age[: max(0, len(by_age) - self.cfg.save_top_k)]:
            del self._by_step[path]
            trainer.strategy.remove_checkpoint(path)


def _replace_by_link(path: Path, target: str) -> None:
    """Replace `path` atomically by a link to a file in the same folder, or by a copy where links are not supported."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.symlink(target, temporary)
    except OSError:
        with replacing(path) as copy, open(path.with_name(target), "rb") as file:
            shutil.copyfileobj(file, copy)
    else:
        os.replace(temporary, path)


class RandomStates(pl.Callback):
    """Saves the states of the global generators of Python, NumPy and torch in every checkpoint.

    This package draws from generators that depend on seed and step alone; code that plugs into it may not.

    Args:
        seed: where the generators start in a run from the beginning.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loaded: dict[str, Any] | None = None
        self.started = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the generators, or restore their states from the checkpoint."""
        self.started = True
        if self.loaded is None:
            random.seed(self.seed)
            np.random.seed(self.seed % 2**32)
            torch.manual_seed(self.seed)
        else:
            restore_random_states(self.loaded)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the current states; those of the loaded checkpoint if no step was done since."""
        checkpoint[STATES] = random_states() if self.started or self.loaded is None else self.loaded

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the states until training starts; loading networks may draw numbers in between."""
        self.loaded = checkpoint.get(STATES)


def random_states() -> dict[str, Any]:
    """Return the global generators' states as plain numbers and tensors, readable with `weights_only`."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Restore the global generators from `random_states()`."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
