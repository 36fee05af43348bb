"""Disk space of a run, checked before its folder is created."""

import shutil
from pathlib import Path

import torch

from zero123s.errors import OutputError

RESERVE_BYTES = 100_000_000
"""Images, a turntable, logs and a mesh of the main recipe."""


def require_disk_space(folder: Path, checkpoint_bytes: int, n_checkpoints: int) -> None:
    """Raise OutputError if a run's files will not fit on the disk of `folder`.

    Args:
        checkpoint_bytes: size of one checkpoint.
        n_checkpoints: how many are kept; space for one more is needed while it is written.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return  # where free space cannot be queried, a full disk is reported when it happens
    needed = checkpoint_bytes * (n_checkpoints + 1) + RESERVE_BYTES
    if free < needed:
        raise OutputError(
            f"'{folder}' has {free / 1e9:.2f} GB of free space and the run needs about {needed / 1e9:.2f} GB "
            f"({n_checkpoints + 1} checkpoints of {checkpoint_bytes / 1e9:.2f} GB, images, mesh); free some, or "
            f"choose another exp_root_dir{'' if n_checkpoints < 3 else ', or lower checkpoint.save_top_k'}."
        )


def checkpoint_bytes(module: torch.nn.Module) -> int:
    """Estimate the size of a checkpoint: weights, buffers, and two moments of every trained weight."""
    weights = sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
    return weights + sum(2 * p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
