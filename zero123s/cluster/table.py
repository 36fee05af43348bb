"""The live table of a batch: what runs, how far it is, how long it takes."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 30.0
"""Where nobody watches."""


def clock(seconds: float | None) -> str:
    """Return "1:05" or "2:00:05"; "?" for an unknown time."""
    if seconds is None:
        return "?"
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def headline(total: int, records: Sequence[Mapping[str, Any]], n_running: int, elapsed: float, deaths: int) -> str:
    """Return one line: counts by state, time, time left at the pace so far."""
    states = Counter(str(r["state"]) for r in records)
    done = len(records)
    fresh = [r for r in records if not r.get("skipped")]
    left = elapsed / len(fresh) * (total - done) if fresh else None
    parts = [f"{done} of {total}", *(f"{n} {state}" for state, n in sorted(states.items()))]
    parts += [f"{n_running} running", f"{clock(elapsed)} so far"]
    parts += [f"{clock(left)} left"] if done < total else []
    parts += [f"{deaths} workers replaced"] if deaths else []
    return ", ".join(parts)


def row(name: str, words: Mapping[str, Any], width: int) -> str:
    """Return one running item's line, a bar included."""
    step, steps = int(words.get("step") or 0), int(words.get("max_steps") or 0)
    bar = "#" * round(20 * step / steps) if steps else ""
    attempt = f" attempt {words['attempt']}" if words.get("attempt", 1) > 1 else ""
    text = f"  {name[:28]:<28} {words.get('stage', 'waiting'):<9} |{bar:<20}| {step}/{steps} {clock(words.get('left'))}{attempt}"
    return text[: width - 1]


class LiveTable:
    """Draws itself over what it drew before; where nobody watches, a headline now and then.

    Args:
        total: number of items.
        stream: where to; None = stderr.
    """

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self.total = total
        self.stream = stream or sys.stderr
        self.started = time.monotonic()
        self._drawn = 0
        self._last = -SECONDS_BETWEEN_LINES

    def show(self, records: Sequence[Mapping[str, Any]], running: Mapping[str, Mapping[str, Any]], deaths: int) -> None:
        """Draw the present state."""
        now = time.monotonic()
        head = headline(self.total, records, len(running), now - self.started, deaths)
        if not self.stream.isatty():
            if now - self._last >= SECONDS_BETWEEN_LINES or len(records) == self.total:
                self._last = now
                print(head, file=self.stream, flush=True)
            return
        size = shutil.get_terminal_size()
        lines = [head[: size.columns - 1], *(row(n, w, size.columns) for n, w in sorted(running.items()))]
        lines = lines[: size.lines - 1]
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self.stream.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self.stream.flush()
        self._drawn = len(lines)
