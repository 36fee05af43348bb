"""Values that change over training: piecewise linear schedules, and sizes that change at given steps."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

from zero123s.errors import ConfigError

MAX_STAGE_VALUE = 16384
"""Pixels of an edge, or views of a batch."""


class Schedule:
    """A piecewise linear function of the global step, constant before its first and after its last point.

    Accepted forms (the lists are threestudio's):

    - `v`: constant
    - `[v0, v1, s1]`: from v0 at step 0 to v1 at step s1
    - `[s0, v0, v1, s1]`: v0 until s0, linear to v1 at s1
    - `[s0, v0, v1, s1, v2, s2, ...]`: further (value, step) pairs
    - `{s0: v0, s1: v1, ...}`: the same points by name

    Steps are always global steps and must be whole numbers: threestudio reads a float end step as epochs, which
    in these single-epoch runs means a schedule that never moves.

    Args:
        value: one of the forms above.
        key: full configuration key, named in errors.

    Raises:
        ConfigError: a malformed schedule.
    """

    def __init__(self, value: object, key: str = "schedule") -> None:
        self.key = key
        self.points: list[tuple[int, float]] = _points(value, key)
        steps = [s for s, _ in self.points]
        if any(a >= b for a, b in pairwise(steps)):
            raise ConfigError(f"{key}: the steps of a schedule must increase, got {steps} in {value!r}.")

    def __call__(self, step: int) -> float:
        """Return the value at global step `step`."""
        first_step, first_value = self.points[0]
        if step <= first_step:
            return first_value
        for (s0, v0), (s1, v1) in pairwise(self.points):
            if step <= s1:
                return v0 + (v1 - v0) * (step - s0) / (s1 - s0)
        return self.points[-1][1]

    @property
    def max(self) -> float:
        """Largest value at any step."""
        return max(v for _, v in self.points)

    @property
    def min(self) -> float:
        """Smallest value at any step."""
        return min(v for _, v in self.points)

    @property
    def is_zero(self) -> bool:
        """True when the value is zero at every step."""
        return all(v == 0 for _, v in self.points)

    @property
    def is_constant(self) -> bool:
        """True when the value never changes."""
        return len({v for _, v in self.points}) == 1

    def __repr__(self) -> str:
        return f"Schedule({self.points if len(self.points) > 1 else self.points[0][1]})"


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
        if not all(isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= MAX_STAGE_VALUE for v in values):
            raise ConfigError(
                f"{key}: expected a whole number from 1 to {MAX_STAGE_VALUE}, or a list of them, got {value!r}."
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


def _points(value: object, key: str) -> list[tuple[int, float]]:
    if isinstance(value, Schedule):
        return value.points
    if isinstance(value, Mapping):
        if not value:
            raise ConfigError(f"{key}: an empty schedule has no value; write a number or {{step: value}}.")
        points = [(_step(s, key), _number(v, key)) for s, v in value.items()]
        return sorted(points)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _points_of_list(list(value), key)
    return [(0, _number(value, key))]


def _points_of_list(value: list, key: str) -> list[tuple[int, float]]:
    if len(value) == 3:
        value = [0, *value]
    if len(value) < 4 or len(value) % 2:
        raise ConfigError(
            f"{key}: {value} is not a schedule: give a number, [start_value, end_value, end_step], "
            "[start_step, start_value, end_value, end_step], that followed by (value, step) pairs, or {step: value}."
        )
    first = (_step(value[0], key), _number(value[1], key))
    rest = [(_step(s, key), _number(v, key)) for v, s in zip(value[2::2], value[3::2], strict=True)]
    return [first, *rest]


def _step(value: object, key: str) -> int:
    if isinstance(value, str) and value.strip().isdigit():  # YAML mappings and the command line give strings
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(
            f"{key}: a step must be a whole number >= 0, got {value!r} (steps are global steps, not epochs)."
        )
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(float(value)):
        raise ConfigError(f"{key}: expected a finite number or a schedule, got {value!r}.")
    return float(value)
