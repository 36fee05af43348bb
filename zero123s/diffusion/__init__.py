"""Zero123 networks: model, sampling, training, checkpoints. The names below are imported when they are first used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zero123s.diffusion.checkpoint.load_zero123 import load_zero123, save_zero123
    from zero123s.diffusion.model import Zero123Model

__all__ = ["Zero123Model", "load_zero123", "save_zero123"]


def __getattr__(name: str) -> Any:
    if name == "Zero123Model":
        from zero123s.diffusion.model import Zero123Model

        return Zero123Model
    if name in __all__:
        from zero123s.diffusion.checkpoint import load_zero123 as module

        return getattr(module, name)
    raise AttributeError(f"module 'zero123s.diffusion' has no attribute '{name}'")
