"""What was done on the pretended device, and by which line of the package."""

import collections
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

PACKAGE = "zero123s"
"""Its innermost frame names the place of a call."""
OWN = "pretend."
"""Modules of the device itself name no place."""


@dataclass
class Counts:
    """Counts since the last `clear()`. A place is "file:line" of the package."""

    launches: collections.Counter[str] = field(default_factory=collections.Counter)
    """Calls that write memory on the device (views and allocations are none), by place."""
    bytes_moved: collections.Counter[str] = field(default_factory=collections.Counter)
    """Bytes of all operands and results of those calls, by place."""
    ops: collections.Counter[str] = field(default_factory=collections.Counter)
    """The same calls by ATen name."""
    waits: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    """Calls during which the host waits for the device, by place and ATen name: reading a number, results whose size
    depends on numbers, and every copy between host and device that is not `non_blocking`."""
    copies: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    """Bytes copied, by place and direction."""
    cpu_random: collections.Counter[str] = field(default_factory=collections.Counter)
    """Random numbers drawn on the CPU, by place."""

    def clear(self) -> None:
        """Start again from zero."""
        for f in fields(self):
            getattr(self, f.name).clear()

    @property
    def n_launches(self) -> int:
        """All launches."""
        return self.launches.total()

    @property
    def n_waits(self) -> int:
        """All waits of the host."""
        return self.waits.total()

    @property
    def n_bytes(self) -> int:
        """All bytes read and written on the device."""
        return self.bytes_moved.total()

    def report(self, file: TextIO = sys.stderr, top: int = 25) -> None:
        """Print totals, and the places that count most."""
        print(f"{self.n_launches} launches, {self.n_bytes / 1e9:.2f} GB, {self.n_waits} waits of the host", file=file)
        tables: list[tuple[str, collections.Counter[Any], Callable[[Any], str]]] = [
            ("waits of the host", self.waits, "  ".join),
            ("bytes copied between host and device", self.copies, "  ".join),
            ("random numbers drawn on the CPU", self.cpu_random, str),
            ("launches", self.launches, lambda where: f"{where}  {self.bytes_moved[where] / 1e6:.1f} MB"),
        ]
        for title, counter, words in tables:
            print(f"-- {title}", file=file)
            for key, n in counter.most_common(top):
                print(f"{n:12d}  {words(key)}", file=file)


def place() -> str:
    """Return the innermost line of the package that led here; a backward pass has none: its graph's is "(backward)"."""
    frame: FrameType | None = sys._getframe(1)
    outside = ""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(PACKAGE):
            return f"{_inside_package(frame.f_code.co_filename)}:{frame.f_lineno}"
        if not outside and not name.startswith(("torch", OWN, "__main__")):
            outside = f"({name}:{frame.f_lineno})"
        frame = frame.f_back
    return outside or "(backward)"


@functools.cache
def _inside_package(file: str) -> str:
    """Return a file's path inside the package."""
    parts = Path(file).parts
    return "/".join(parts[len(parts) - parts[::-1].index(PACKAGE) :])
