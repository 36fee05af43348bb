"""Settings that change at given steps: sizes and batch sizes of progressive training."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from zero123s.errors import ConfigError

MAX_VALUE = 16384
"""Pixels of an edge, or views of a batch."""


class Stages:
    """A value per stage; stage i+1 begins exactly at step `milestones[i]`.

    Args:
        value: one number for all stages, or one per stage.
        milestones: strictly increasing global steps; one fewer than stages.
        key: full configuration key, named in errors.
    """

    def __init__(self, value: Any, milestones: Sequence[int], key: str) -> None:
        steps = list(milestones)
        if any(a >= b for a, b in pairwise(steps)) or any(s < 1 for s in steps):
            raise ConfigError(
                f"{key.rpartition('.')[0]}.resolution_milestones: expected increasing steps >= 1, got {steps}."
            )
        values = list(value) if isinstance(value, list | tuple) else [value] * (len(steps) + 1)
        if len(values) != len(steps) + 1:
            raise ConfigError(
                f"{key}: {len(values)} values for {len(steps)} {key.rpartition('.')[0]}.resolution_milestones; give "
                f"{len(steps) + 1} or one number."
            )
        if not all(isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= MAX_VALUE for v in values):
            raise ConfigError(
                f"{key}: expected a whole number from 1 to {MAX_VALUE}, or a list of them, got {value!r}."
            )
        self.values: list[int] = values
        self.milestones = steps

    def __call__(self, step: int) -> int:
        """Return the value at global step `step`."""
        return self.values[bisect_right(self.milestones, step)]

    @property
    def max(self) -> int:
        """Largest value of any stage."""
        return max(self.values)
