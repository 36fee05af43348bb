"""Writing files whole or not at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zero123s.errors import OutputError

OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def explain_os_error(error: OSError) -> str:
    """Return what stands between a program and its file, in a few words that say what to do."""
    if error.errno in OUT_OF_SPACE:
        return "the disk is full or a quota is reached; free some space or choose another place"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write there; choose another place"
    return (error.strerror or str(error)).lower()


def user_path(text: str | Path) -> Path:
    """Return a path as a person wrote it with `~` and `~user` replaced; a shell does so only in some places."""
    return Path(os.path.expanduser(text))


@contextmanager
def replacing(path: Path, mode: str = "wb", sync: bool = True, shared: bool = False) -> Iterator[IO]:
    """Open a temporary file beside `path` that takes its place when the block ends without an error.

    The earlier file of that name stays until the new one is on the disk.

    Args:
        path: where the file shall be.
        mode: "wb" or "w".
        sync: wait for the disk, so that not even a power cut leaves half a file; False is faster for many pictures.
        shared: several processes may write it at the same moment, and whoever ends last wins; with one temporary
            name for all, the first would take the file of the second away.

    Raises:
        OutputError: the folder cannot be made or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part" if shared else f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {explain_os_error(error)}.") from error
    finally:
        # Nothing is left of a failed attempt; after a success the name is already gone.
        with _ignored():
            temporary.unlink(missing_ok=True)


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """Write a text file whole or not at all; `shared` as in `replacing`. Raises OutputError."""
    with replacing(path, "w", shared=shared) as file:
        file.write(text)
