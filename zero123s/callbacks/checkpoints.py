"""Checkpoints that are whole or not there, and that hold everything a resumed run needs."""

import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO

from zero123s.errors import CheckpointError
from zero123s.runtime.files import replacing

STATES = "random_states"


class AtomicCheckpointIO(CheckpointIO):
    """Writes to a temporary file, syncs, and renames; reads without running pickled code, and checks every checksum."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; the previous file of that name stays until the new one is whole. Raises OutputError."""
        with replacing(Path(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # torch's zip writer hides the reason that the file object gave.
                reason = error.__cause__ or error.__context__
                raise (reason if isinstance(reason, OSError) else OSError(str(error).splitlines()[0])) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint; raises CheckpointError for a damaged or foreign file."""
        check_checksums(Path(path))
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle.UnpicklingError and whatever a foreign pickle raises
            raise CheckpointError(f"'{path}' is no readable checkpoint of a run ({type(error).__name__}).") from error
        if not isinstance(state, dict) or not {"state_dict", "global_step"} <= state.keys():
            raise CheckpointError(
                f"'{path}' is a file of torch, but no checkpoint of a run; resume= wants one from a run's ckpts/ folder "
                "(a Zero123 model belongs in system.guidance.checkpoint)."
            )
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint that a newer one replaces."""
        Path(path).unlink(missing_ok=True)


def check_checksums(path: Path) -> None:
    """Compare every record of a checkpoint with its CRC-32; raises CheckpointError for a damaged file.

    torch writes the checksums and does not look at them when it reads.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError as error:
        raise CheckpointError(f"The checkpoint '{path}' cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # zipfile raises many kinds for a damaged directory
        raise CheckpointError(
            f"'{path}' is no checkpoint of a run, or it is cut short ({type(error).__name__}); an earlier one may lie "
            f"beside it in {path.parent}."
        ) from error
    if damaged is not None:
        raise CheckpointError(
            f"The checkpoint '{path}' is damaged: the checksum of its record '{damaged}' is wrong; an earlier one may "
            f"lie beside it in {path.parent}."
        )


class RandomStates(pl.Callback):
    """Keeps the global generators of Python, NumPy and torch in every checkpoint.

    This package draws from generators that depend on seed and step alone; code that plugs into it may not.

    Args:
        seed: where the generators start in a run from the beginning.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loaded: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the generators, or set them to where the checkpoint left them."""
        if self.loaded is None:
            random.seed(self.seed)
            np.random.seed(self.seed % 2**32)
            torch.manual_seed(self.seed)
        else:
            restore_random_states(self.loaded)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the present states."""
        checkpoint[STATES] = random_states()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember the states until training starts; loading networks may draw numbers in between."""
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
    """Set the global generators to `random_states()` of another moment."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
