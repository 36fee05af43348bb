"""Output on the terminal: log lines that do not break the progress bar, and a copy in the run folder."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zero123s.errors import UserError, explain_missing_package
from zero123s.runtime.files import OUT_OF_SPACE, explain_os_error
from zero123s.runtime.processes import is_main_process

ROOT = "zero123s"


class _Terminal(logging.Handler):
    """Writes to stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")  # no bar can be open before tqdm is imported
        line = self.format(record)
        if tqdm is None:
            print(line, file=sys.stderr)
        else:
            tqdm.tqdm.write(line, file=sys.stderr)


def set_up_logging(verbose: bool) -> None:
    """Send this package's log to the terminal: choices made, or with `verbose` every detail. May be called again.

    Of several processes that train together the main one logs; the others only warn.
    """
    logger = logging.getLogger(ROOT)
    for handler in [h for h in logger.handlers if isinstance(h, _Terminal)]:
        logger.removeHandler(handler)
    handler = _Terminal()
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s: %(message)s" if verbose else "%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO if is_main_process() else logging.WARNING)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Also write the log, with times, to a file for the duration of the block."""
    logger = logging.getLogger(ROOT)
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def limit_openmp_spin() -> None:
    """Stop OpenMP's waiting threads from spinning; must be called before torch is first imported.

    A thread that spins keeps a core from the one it waits for: while other programs use the cores, a training step on
    two threads took 9 times as long as on free ones, and twice as long with this (docs/performance.md). What the user's
    environment says already stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def run_command(command: Callable[[], int]) -> int:
    """Run a command; returns its exit code: 2 and one sentence for a user error, 3 for a lost run, 130 interrupted."""
    try:
        return command()
    except UserError as error:
        # What it quotes of the user's may have lines of its own.
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"error: {explain_missing_package(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        # Loggers and encoders write files of their own; a full disk is not a bug of ours.
        if error.errno not in OUT_OF_SPACE:
            raise
        print(f"error: '{error.filename or 'a file'}' cannot be written: {explain_os_error(error)}.", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        from zero123s.ops.memory import is_out_of_memory  # torch is there by now, or it could not have come to this

        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(
            f"error: memory ran out ({reason}); use smaller images, fewer views or a coarser grid "
            "(system.exporter.isosurface_resolution); a run resumes from its last checkpoint with resume=last.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
