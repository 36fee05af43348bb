"""Atomic writing of files, and messages about file errors."""

import errno
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from zero123s.errors import ConfigError, OutputError

OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def explain_os_error(error: OSError) -> str:
    """Describe an operating system error in a few words that say what to do."""
    if error.errno in OUT_OF_SPACE:
        return "the disk is full or a quota is reached; free some space or choose another place"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write there; choose another place"
    return (error.strerror or str(error)).lower()


MAX_PATH_BYTES, MAX_NAME_BYTES = 4095, 255
"""Limits of Linux and macOS; longer paths raise OSError everywhere."""


def user_path(text: str | Path) -> Path:
    """Expand `~` and `~user` in a path given by the user; a shell does so only in some places.

    Raises:
        ConfigError: no file system has a file of such a name.
    """
    path = Path(os.path.expanduser(text))
    is_long = len(os.fsencode(path)) > MAX_PATH_BYTES or any(len(os.fsencode(p)) > MAX_NAME_BYTES for p in path.parts)
    if is_long or "\0" in str(path):
        shown = repr(str(path)) if len(str(path)) <= 80 else f"'{str(path)[:77]}...'"
        raise ConfigError(
            f"{shown} cannot be the path of a file: {'it is too long' if is_long else 'it has a zero byte'}."
        )
    return path


_QUOTED_PATH = re.compile(r"'(?:/|[A-Za-z]:\\)[^'\n]*'")


def without_folders(value: Any, inside: Path | None = None) -> Any:
    """Remove this machine's folders from JSON-like content, for people who publish it.

    An absolute path becomes the file's name, also in quotes in a sentence; one in `inside` becomes relative to it.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(inner, inside) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(inner, inside) for inner in value]
    if not isinstance(value, str):
        return value
    for folder in () if inside is None else dict.fromkeys((str(inside), str(inside.absolute()), str(inside.resolve()))):
        value = value.replace(f"{folder}/", "") if folder not in ("", ".", "/") else value
    if os.path.isabs(value) and "\n" not in value:
        return os.path.basename(value.rstrip("/"))
    return _QUOTED_PATH.sub(lambda found: f"'{os.path.basename(found[0][1:-1])}'", value)


@contextmanager
def replacing(path: Path, mode: str = "wb", sync: bool = True, shared: bool = False) -> Iterator[IO]:
    """Open a temporary file that replaces `path` if the block ends without an error.

    The earlier file of that name stays until the new one is on the disk.

    Args:
        path: where the file shall be.
        mode: "wb" or "w".
        sync: wait for the disk, so that not even a power cut leaves half a file; False is faster for many images.
        shared: several processes may write it at the same moment, and the last one wins; with one temporary name
            for all, the first would take the file of the second away.

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
    """Write a text file atomically; `shared` as in `replacing`. Raises OutputError."""
    with replacing(path, "w", shared=shared) as file:
        file.write(text)
