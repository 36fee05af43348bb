"""One image in, a clean textured 3D mesh out, by score distillation with Stable Zero123."""

__version__ = "0.1.0"
