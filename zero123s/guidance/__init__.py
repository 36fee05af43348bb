"""Guidances by name. Add your own with `imports:` in YAML; see docs/extending.md."""

from zero123s.guidance import combined, stable_diffusion, zero123  # noqa: F401
from zero123s.guidance.base import GUIDANCES, BaseGuidance

__all__ = ["GUIDANCES", "BaseGuidance"]
