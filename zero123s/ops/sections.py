"""Names for the parts of a training step, seen by `--profile-run` and by torch's profiler; free otherwise."""

from contextlib import AbstractContextManager

import torch

PREFIX = "zero123s: "


def section(name: str) -> AbstractContextManager:
    """Return a context in which everything counts as part `name` of a step."""
    return torch.profiler.record_function(PREFIX + name)
