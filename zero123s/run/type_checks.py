"""`--typecheck`: checks the annotated types and shapes of every function of this package at run time."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

PACKAGE = __name__.partition(".")[0]
check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype that takes an int where a float is annotated, as PEP 484 says."""


class _KernelModules(MetaPathFinder):
    """Exempts modules with numba kernels from the import hook: numba cannot compile the checks."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module with kernels, else leave it to the hook."""
        if not fullname.startswith(f"{PACKAGE}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        source = Path(spec.origin) if spec is not None and spec.origin else None
        return spec if source and "njit" in source.read_text(encoding="utf-8") else None


def check_types_while_running() -> None:
    """Let beartype check every jaxtyping annotation of modules imported from here on."""
    install_import_hook(PACKAGE, f"{__name__}.check_types")
    sys.meta_path.insert(0, _KernelModules())
