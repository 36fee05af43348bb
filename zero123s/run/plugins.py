"""Code from outside that registers its own classes: `imports:` in YAML, custom/*.py, installed packages."""

import importlib
import importlib.util
import logging
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

_TOLD: set[str] = set()
"""Named in this process's log: a run asks for its plugins more than once."""


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
    for name in imports:
        _import_named(name)
        loaded.append(name)
    for name in loaded:
        logger.log(logging.DEBUG if name in _TOLD else logging.INFO, "plugin %s", name)
    _TOLD.update(loaded)
    return loaded


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
    except BaseException:
        del sys.modules[name]
        raise


def _import_named(name: str) -> None:
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
