"""Ranges, choices and schedules of Config fields, and the documentation that is read from them."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from zero123s.config.options import describe_limits, field_docs, option, schedules
from zero123s.config.parse import parse
from zero123s.errors import ConfigError


@dataclass
class Inner:
    """A section."""

    rate: float = option(0.5, low=0.0, high=1.0)
    """How fast,
    in shares."""
    sizes: list[int] = option([1, 2], low=1)
    """Sizes."""


@dataclass
class Outer:
    """All kinds of limits."""

    inner: Inner = field(default_factory=Inner)
    """Nested."""
    mode: str = option("fast", choices=("fast", "slow"))
    """How."""
    weight: Any = option(0.0, low=0.0, schedule=True)
    """Weight."""
    clip: float | None = option(None, above=0)
    """Clip."""
    free: int = 3


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"inner": {"rate": 1.5}}, r"^s\.inner\.rate: 1\.5 is out of range, expected 0 to 1\.$"),
        ({"inner": {"sizes": [4, 0]}}, r"s\.inner\.sizes: 0 is out of range, expected >= 1"),
        ({"mode": "slwo"}, r"s\.mode: 'slwo' is not fast or slow\. Did you mean 'slow'\?"),
        ({"weight": [0, 1.0, -1.0, 10]}, r"s\.weight: -1 is out of range"),
        ({"weight": [1.0, 2.0]}, r"s\.weight: \[1\.0, 2\.0\] is not a schedule"),
        ({"clip": 0}, r"s\.clip: 0 is out of range, expected > 0"),
    ],
)
def test_out_of_range_values_are_reported_with_key(section, message):
    with pytest.raises(ConfigError, match=message):
        parse(Outer, section, "s")


def test_values_inside_pass_and_defaults_are_fresh():
    a, b = parse(Outer, {"weight": [10, 1.0, 0.0, 20], "clip": 2, "free": -7}), parse(Outer, {})
    a.inner.sizes.append(9)
    assert b.inner.sizes == [1, 2]
    assert Outer().inner.sizes == [1, 2]


def test_schedules_are_found_by_key():
    found = schedules(parse(Outer, {"weight": [10, 1.0, 0.0, 20]}), "s")
    assert list(found) == ["s.weight"]
    assert found["s.weight"](15) == 0.5


def test_docs_and_limits_are_read_from_the_source():
    assert field_docs(Inner) == {"rate": "How fast, in shares.", "sizes": "Sizes."}
    overrides = {f.name: describe_limits(f) for f in Outer.__dataclass_fields__.values()}
    assert overrides == {
        "inner": "",
        "mode": "fast or slow",
        "weight": "number or schedule; >= 0",
        "clip": "> 0",
        "free": "",
    }
