"""Constraints of Config fields beyond their type: ranges, choices, schedules; and their documentation."""

import ast
import functools
import inspect
import math
import os
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, field, fields, is_dataclass
from itertools import pairwise
from numbers import Real
from typing import Any, get_type_hints

from zero123s.config.schedule import Schedule
from zero123s.errors import ConfigError
from zero123s.registry import nearest
from zero123s.runtime.files import user_path

LARGEST = 2**63 - 1
"""Largest whole number that torch takes."""
LIMITS = "limits"
"""Key of a field's metadata: what `option` was given."""
PATH = "path"
WORDS = ("auto", "last")
"""Special values of a path, which are not file names."""
ENTRIES = "entries"
"""Key of a field's metadata: the dataclass of every entry of a list of sections."""
SLOT = "slot"
"""Key of a field's metadata: name of the slot whose settings it holds, and the field of the same section that names its type."""


def option(
    default: Any = MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    schedule: bool = False,
    path: bool = False,
) -> Any:
    """Return a dataclass field whose value is checked when a configuration is parsed.

    Args:
        default: the default; lists and dicts are copied for every instance.
        low: smallest value allowed, in a list for every entry, in a schedule at every step.
        high: largest value allowed.
        above: the value must be larger than this.
        choices: the values allowed.
        schedule: the value is a number or a `Schedule` (see `zero123s.config.schedule`).
        path: the value is a file or folder, or a word in the place of one: `~` is expanded when it is parsed.
    """
    metadata: dict[str, Any] = {
        LIMITS: {"low": low, "high": high, "above": above, "choices": choices, "schedule": schedule}
    }
    if path:
        metadata[PATH] = True
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@functools.cache
def type_hints(schema: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields: evaluated once, because a configuration has hundreds of keys.

    Raises:
        NameError: an annotation that only a type checker can resolve.
    """
    return get_type_hints(schema)


def describe_limits(f: Field) -> str:
    """Return "1 to 5", "> 0", "a, b or c", "number or schedule", or an empty string."""
    limits = f.metadata.get(LIMITS, {})
    parts = ["number or schedule"] if limits.get("schedule") else []
    low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
    if limits.get("choices"):
        *most, last = limits["choices"]
        parts.append(f"{', '.join(most)} or {last}" if most else last)
    if low is not None and high is not None:
        parts.append(f"{_format_number(low)} to {_format_number(high)}")
    elif low is not None:
        parts.append(f">= {_format_number(low)}")
    elif above is not None:
        parts.append(f"> {above:g}" if high is None else f"> {above:g}, at most {_format_number(high)}")
    elif high is not None:
        parts.append(f"at most {_format_number(high)}")
    return "; ".join(parts)


def _format_number(number: float) -> str:
    """Format a whole number without an exponent: 1,000,000, not 1e+06."""
    return f"{int(number):,}" if number == int(number) and 1e6 <= abs(number) < 1e16 else f"{number:g}"


def walk(config: Any, key: str = "") -> Iterator[tuple[str, Field, Any]]:
    """Yield (full key, field, value) of every leaf of a parsed configuration."""
    for f in fields(config):
        full = f"{key}.{f.name}" if key else f.name
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from walk(value, full)
        else:
            yield full, f, value


def expand_paths(config: Any) -> None:
    """Replace `~` in every path of a parsed configuration, in place."""
    for owner, name, value in _paths(config):
        setattr(owner, name, str(user_path(value)))


def make_paths_absolute(config: Any) -> None:
    """Make every existing path of a parsed configuration absolute, in place.

    Names that nothing has in the working folder stay: hub ids, and files that are found in this project's own folder.
    """
    for owner, name, value in _paths(config):
        if value not in WORDS and os.path.exists(value):
            setattr(owner, name, os.path.abspath(value))


def _paths(config: Any) -> Iterator[tuple[Any, str, str]]:
    """Yield (section, field name, value) of every path that is set, in nested sections and lists of sections too."""
    for f in fields(config):
        value = getattr(config, f.name)
        for section in value if isinstance(value, list) else [value]:
            if is_dataclass(section) and not isinstance(section, type):
                yield from _paths(section)
        if PATH in f.metadata and isinstance(value, str) and value:
            yield config, f.name, value


def check_values(config: Any, key: str = "") -> None:
    """Raise ConfigError for the first value outside its limits, naming key, value and limits."""
    for full, f, value in walk(config, key):
        _check_size(value, full, describe_limits(f))
        limits = f.metadata.get(LIMITS)
        if limits is None or value is None:
            continue
        if limits["choices"]:
            if value not in limits["choices"]:
                hint = nearest(str(value), list(limits["choices"]))
                raise ConfigError(f"{full}: '{value}' is not {describe_limits(f)}.{hint}")
            continue
        for number in _numbers(value, full, limits["schedule"]):
            low, high, above = limits["low"], limits["high"], limits["above"]
            if (
                (low is not None and number < low)
                or (high is not None and number > high)
                or (above is not None and number <= above)
            ):
                raise ConfigError(f"{full}: {_format_number(number)} is out of range, expected {describe_limits(f)}.")


def _check_size(value: Any, key: str, limits: str) -> None:
    """Refuse numbers that exceed the machine's integers, anywhere in a value."""
    for entry in value if isinstance(value, list | tuple) else [value]:
        if isinstance(entry, float) and not math.isfinite(entry):
            raise ConfigError(f"{key}: expected a finite number, got {entry}.")
        if isinstance(entry, int) and abs(entry) > LARGEST:
            expected = f", expected {limits}" if limits else ""
            raise ConfigError(f"{key}: a number of {len(str(abs(entry)))} digits is out of range{expected}.")


def _numbers(value: Any, key: str, schedule: bool) -> list[float]:
    if schedule:
        return [v for _, v in Schedule(value, key).points]
    entries = value if isinstance(value, list | tuple) else [value]
    return [float(v) for v in entries if isinstance(v, Real) and not isinstance(v, bool)]


def ordered(value: list[float], key: str, low: float = float("-inf"), high: float = float("inf")) -> None:
    """Raise ConfigError unless `value` is [low end, high end], in this order and within the limits."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        within = f" within [{low:g}, {high:g}]" if low > float("-inf") else ""
        raise ConfigError(f"{key}: expected [low, high]{within}, got {value}.")


def schedules(config: Any, key: str = "") -> dict[str, Schedule]:
    """Return every scheduled value of a parsed configuration by its full key."""
    return {
        full: Schedule(value, full)
        for full, f, value in walk(config, key)
        if value is not None and f.metadata.get(LIMITS, {}).get("schedule")
    }


def field_docs(schema: type) -> dict[str, str]:
    """Map each field to the docstring below it, base classes included; metadata "doc" overrides it."""
    docs: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        if is_dataclass(cls):
            docs |= _docs_in_source(cls)
    return docs | {f.name: f.metadata["doc"] for f in fields(schema) if "doc" in f.metadata}


def _docs_in_source(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # made by make_dataclass, or typed into a prompt
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs = {}
    for before, after in pairwise(body):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            docs[before.target.id] = " ".join(after.value.value.split())
    return docs


def has_default(f: Field) -> bool:
    """Tell whether a field is optional; "???" marks a required one in OmegaConf."""
    return (f.default is not MISSING or f.default_factory is not MISSING) and f.default != "???"


def default_of(f: Field) -> Any:
    """Return a field's default, or "required"."""
    if not has_default(f):
        return "required"
    return f.default if f.default_factory is MISSING else f.default_factory()
