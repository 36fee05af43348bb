"""What a person at the terminal sees: log lines that do not break the progress bar, and a copy in the run folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = "zero123s"


class _Terminal(logging.Handler):
    """Writes to stderr, above a progress bar if one is on the screen."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")  # no bar can be open before somebody imported it
        line = self.format(record)
        if tqdm is None:
            print(line, file=sys.stderr)
        else:
            tqdm.tqdm.write(line, file=sys.stderr)


def set_up_logging(verbose: bool) -> None:
    """Send this package's log to the terminal: what was chosen, or with `verbose` every detail. Can be repeated."""
    logger = logging.getLogger(ROOT)
    for handler in [h for h in logger.handlers if isinstance(h, _Terminal)]:
        logger.removeHandler(handler)
    handler = _Terminal()
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s: %(message)s" if verbose else "%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Also write the log, with times, to a file for the length of the block."""
    logger = logging.getLogger(ROOT)
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
