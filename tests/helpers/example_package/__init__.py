"""A package outside zero123s that adds a geometry and a guidance: name it under `imports:` in YAML."""

from example_package import annealed_guidance, symmetric_volume

__all__ = ["annealed_guidance", "symmetric_volume"]
