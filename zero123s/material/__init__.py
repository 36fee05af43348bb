"""Materials by name. Add your own with `imports:` in YAML."""

from zero123s.material import diffuse, neural_radiance, plain  # noqa: F401
from zero123s.material.base import MATERIALS, BaseMaterial

__all__ = ["MATERIALS", "BaseMaterial"]
