"""Text-to-3D: random views of a field under score distillation with a prompt (DreamFusion)."""

from dataclasses import dataclass
from typing import Any

from zero123s.errors import ConfigError
from zero123s.losses import TERMS, LossWeights
from zero123s.structures import Batch, ReferenceView
from zero123s.system.base import SYSTEMS
from zero123s.system.zero123 import Zero123System


@SYSTEMS.register("dreamfusion-system")
class DreamFusionSystem(Zero123System):
    """Optimises a radiance field under score distillation alone; there is no reference image."""

    @dataclass
    class Config(Zero123System.Config):
        """Settings of `dreamfusion-system`."""

        guidance_type: str = "stable-diffusion-guidance"
        """Registered guidance; it must do without an image."""

    @classmethod
    def check(cls, cfg: Any) -> None:
        """Type all slot sections; raises ConfigError, also for weights of terms that compare with an image."""
        super().check(cfg)
        weights = LossWeights(cfg.loss)
        if not weights.is_ever_used("sds"):
            raise ConfigError("system.loss.lambda_sds is 0, and dreamfusion-system learns from nothing else.")
        useless = [name for name, term in TERMS.items() if term.views == {"reference"} and weights.is_ever_used(name)]
        if useless:
            raise ConfigError(f"system.loss.lambda_{useless[0]} compares with an image; dreamfusion-system has none.")

    def input_view(self) -> ReferenceView | None:
        """None."""
        return None

    def passes(self, batch: Batch, step: int) -> tuple[bool, bool]:
        """Return (False, True): only the novel pass."""
        return False, True
