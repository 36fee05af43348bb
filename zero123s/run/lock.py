"""A lock that allows one writer per run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid
from pathlib import Path

from filelock import FileLock, Timeout

from zero123s.errors import ConfigError, OutputError
from zero123s.runtime.files import explain_os_error

LOCK, OWNER = ".lock", ".lock.pid"
"""The locked file, and a second file that names its owner: another process that opens the locked file may truncate it.
"""


class FolderInUseError(ConfigError):
    """Another process is writing to the run folder."""


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Lock a run folder for the duration of the block; the operating system releases it even if the process is killed.

    Raises:
        FolderInUseError: another process holds it.
        OutputError: the folder cannot be written or its file system cannot lock.
    """
    lock, owner = FileLock(run_dir / LOCK, timeout=0), run_dir / OWNER
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        process = owner.read_text(encoding="utf-8").strip() if owner.is_file() else ""
        raise FolderInUseError(
            f"The run folder '{run_dir}' is in use by process {process or 'unknown'}; wait for it, stop it, or give this "
            "run a folder of its own with another tag=."
        ) from None
    except OSError as error:
        raise OutputError(f"The run folder '{run_dir}' cannot be written: {explain_os_error(error)}.") from error
    try:
        owner.write_text(str(getpid()), encoding="utf-8")
        yield
    finally:
        lock.release()
