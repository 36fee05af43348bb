"""One image in, a clean textured 3D mesh out, by score distillation with Stable Zero123."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zero123s.api import Result, image_to_mesh, prepare, read_result
    from zero123s.diffusion.novel_views import novel_views

__version__ = "0.1.0"

__all__ = ["Result", "image_to_mesh", "novel_views", "prepare", "read_result"]

_PUBLIC = {
    "Result": "zero123s.api",
    "image_to_mesh": "zero123s.api",
    "prepare": "zero123s.api",
    "read_result": "zero123s.api",
    "novel_views": "zero123s.diffusion.novel_views",
}
"""Names that are imported when they are first used, so that `import zero123s` costs nothing."""


def __getattr__(name: str) -> Any:
    import importlib

    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'zero123s' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
