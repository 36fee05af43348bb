"""One image in, a clean textured 3D mesh out, by score distillation with Stable Zero123."""

from typing import Any

__version__ = "0.1.0"

_PUBLIC = {"novel_views": "zero123s.diffusion.views"}
"""Names that are imported when they are first used, so that `import zero123s` costs nothing."""


def __getattr__(name: str) -> Any:
    import importlib

    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'zero123s' has no attribute '{name}'")
