"""Systems by name."""

from zero123s.system import autoencoder, dreamfusion, finetune, zero123  # noqa: F401
from zero123s.system.base import SYSTEMS, BaseSystem

__all__ = ["SYSTEMS", "BaseSystem"]
