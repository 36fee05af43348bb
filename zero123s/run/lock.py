"""One writer per run folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zero123s.errors import ConfigError, OutputError
from zero123s.runtime.files import explain_os_error


class FolderInUseError(ConfigError):
    """A run folder that another process holds."""


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run folder for the time of the block; the operating system lets go of it even when the process is killed.

    Raises:
        FolderInUseError: another process holds it.
        OutputError: the folder cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = open(run_dir / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 (held until the block ends)
    except OSError as error:
        raise OutputError(f"The run folder '{run_dir}' cannot be written: {explain_os_error(error)}.") from error
    try:
        if not _try_lock(file.fileno()):
            file.seek(0)
            raise FolderInUseError(
                f"The run folder '{run_dir}' is in use by process {file.read().strip() or 'unknown'}; wait for it, "
                "stop it, or start a run of your own without resume=."
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
    finally:
        file.close()


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
