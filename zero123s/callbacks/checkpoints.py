"""Checkpoints that are whole or not there."""

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from zero123s.errors import CheckpointError


class AtomicCheckpointIO(CheckpointIO):
    """Writes to a temporary file, syncs, and renames; reads without running pickled code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; the previous file of that name stays until the new one is whole."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        try:
            with open(temporary, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise CheckpointError(f"Cannot write the checkpoint '{target}': {error.strerror}.") from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint; raises CheckpointError for a damaged or foreign file."""
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
            raise CheckpointError(
                f"'{path}' is no readable checkpoint of a run ({str(error).splitlines()[0]})."
            ) from error
        except Exception as error:  # pickle.UnpicklingError and whatever a damaged pickle raises
            raise CheckpointError(f"'{path}' is no readable checkpoint of a run ({type(error).__name__}).") from error

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint that a newer one replaces."""
        Path(path).unlink(missing_ok=True)
