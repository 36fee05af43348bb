"""Names of the parts of a training step for `--profile-run` and torch's profiler; free otherwise."""

from contextlib import AbstractContextManager

import torch

PREFIX = "zero123s: "


def section(name: str) -> AbstractContextManager:
    """Return a context in which everything counts as one part of a training step.

    Args:
        name: of the part, as `--profile-run` and torch's profiler show it.

    Returns:
        A context manager.
    """
    return torch.profiler.record_function(PREFIX + name)
