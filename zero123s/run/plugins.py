"""External code that registers its own classes: `imports:` in YAML, custom/*.py, installed packages."""

import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from zero123s.errors import ConfigError

logger = logging.getLogger(__name__)

GROUP = "zero123s.plugins"
"""Entry point group: a package that declares one under it is imported by every run."""
FOLDER = Path("custom")
"""Files in this folder of the working directory are imported by every run, as in threestudio; tests are not."""

_LOGGED: set[str] = set()
"""Plugins already logged by this process: a run loads them more than once."""


def load_plugins(imports: Sequence[str] = (), folder: Path = FOLDER) -> list[str]:
    """Import everything that may register classes; returns the names.

    An error inside the imported code is its own and propagates with its traceback.

    Raises:
        ConfigError: a package named in `imports:` does not exist.
    """
    loaded = []
    for entry in metadata.entry_points(group=GROUP):
        entry.load()
        loaded.append(entry.value)
    for path in sorted(p for p in folder.glob("*.py") if not p.name.startswith(("test_", "_"))):
        _import_file(path)
        loaded.append(str(path))
    for path in sorted(folder.glob("*/__init__.py")):
        _refuse_threestudio(path.parent)
    for name in imports:
        _import_named(name)
        loaded.append(name)
    for name in loaded:
        logger.log(logging.DEBUG if name in _LOGGED else logging.INFO, "plugin %s", name)
    _LOGGED.update(loaded)
    return loaded


_OF_THREESTUDIO = re.compile(r"^\s*(import threestudio\b|from threestudio\b)", re.M)


def _refuse_threestudio(folder: Path) -> None:
    """Raise ConfigError for a folder of code that imports threestudio; other folders are for `imports:`."""
    for path in sorted(folder.rglob("*.py")):
        if _OF_THREESTUDIO.search(path.read_text(encoding="utf-8", errors="replace")):
            raise ConfigError(_for_threestudio(path, folder))


def _for_threestudio(path: Path, whole: Path) -> str:
    return (
        f"{path} was written for threestudio, which it imports: classes register with the slot's registry here, take their "
        "settings in __init__ and have typed signatures (docs/from-threestudio.md). See what to change, line by line, with "
        f"`zero123s migrate {whole}`; `--write` changes the files."
    )


def _import_file(path: Path) -> None:
    name = f"zero123s_custom_{path.stem}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ModuleNotFoundError) and str(error.name).split(".")[0] == "threestudio":
            raise ConfigError(_for_threestudio(path, path)) from error
        raise


def _import_named(name: str) -> None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"imports: '{name}' is not a name of a package; write it as in Python's import, such as my.package."
        )
    # `python launch.py` has its own folder on the path, the `zero123s` command does not.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise ConfigError(
            f"imports: there is no package '{name}' here; install it, or run from the folder that holds it."
        ) from error
