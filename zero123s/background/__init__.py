"""Backgrounds by name. Add your own with `imports:` in YAML."""

from zero123s.background import environment_map, solid, textured  # noqa: F401
from zero123s.background.base import BACKGROUNDS, BaseBackground

__all__ = ["BACKGROUNDS", "BaseBackground"]
