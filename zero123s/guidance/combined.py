"""Several guidances at once, each with a weight, as in Magic123."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.config.options import ENTRIES, SLOT, option
from zero123s.config.parse import parse, parse_slot
from zero123s.config.schedule import Schedule
from zero123s.errors import ConfigError
from zero123s.guidance.base import GUIDANCES, BaseGuidance
from zero123s.structures import Cameras, GuidanceOutput, RadianceField, ReferenceView


@dataclass
class PartConfig:
    """One guidance of the sum."""

    type: str = "???"
    """Registered guidance."""
    weight: Any = option(1.0, low=0.0, schedule=True)
    """Factor on its loss (not on an image loss, see lambda_sds_img); number or schedule. At 0 it is not computed."""
    settings: Any = field(default_factory=dict, metadata={SLOT: ("guidance", "type")})
    """Its settings, as they would stand under system.guidance."""


@GUIDANCES.register("combined-guidance")
class CombinedGuidance(BaseGuidance):
    """The weighted sum of several guidances."""

    @dataclass
    class Config(BaseGuidance.Config):
        """Settings of `combined-guidance`."""

        guidances: list[Any] = field(default_factory=list, metadata={ENTRIES: PartConfig})
        """A list of {type, weight, settings}."""

    cfg: Config
    resizes_to_square = True

    @classmethod
    def check(cls, cfg: Config) -> None:
        """Type every part and its settings in place; raises ConfigError."""
        if not cfg.guidances:
            raise ConfigError("system.guidance.guidances is empty; list at least one {type, weight, settings}.")
        for i, given in enumerate(cfg.guidances):
            key = f"system.guidance.guidances.{i}"
            part = given if isinstance(given, PartConfig) else parse(PartConfig, given, key)
            if not isinstance(part.settings, BaseGuidance.Config):
                part_class, part.settings = parse_slot(GUIDANCES, part.type, part.settings, f"{key}.settings")
                part_class.check(part.settings)
            cfg.guidances[i] = part

    @classmethod
    def requirements(cls, cfg: Config) -> dict[str, str | bool | None]:
        """Check every part; returns the first one's entry about its model."""
        found = [GUIDANCES.get(part.type).requirements(part.settings) for part in cfg.guidances]
        return found[0]

    def __init__(self, cfg: Config, reference: ReferenceView | None, device: torch.device | str = "cpu") -> None:
        super().__init__(cfg, reference, device)
        self.check(cfg)
        self.weights = [
            Schedule(p.weight, f"system.guidance.guidances.{i}.weight") for i, p in enumerate(cfg.guidances)
        ]
        self.parts = [GUIDANCES.get(p.type)(p.settings, reference, device) for p in cfg.guidances]
        sizes = [part.image_size for part in self.parts]
        self.image_size = None if None in sizes else max(size for size in sizes if size is not None)

    def __call__(
        self, comp_rgb: Float[Tensor, "B H W K"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> GuidanceOutput:
        """Return the weighted sum of the losses, the norm of all weighted gradients and the first part's timesteps."""
        # Every part draws from a stream of its own, so that switching one off leaves the others as they were.
        seeds = torch.randint(0, 2**62, (len(self.parts),), generator=generator).tolist()
        for part in self.parts:
            part.n_parts = self.n_parts
        outputs = [
            (weight(step), part(comp_rgb, cameras, step, torch.Generator().manual_seed(seed)))
            for part, weight, seed in zip(self.parts, self.weights, seeds, strict=True)
            if weight(step) > 0
        ]
        if not outputs:
            zero = 0 * comp_rgb.sum()
            return GuidanceOutput(zero, zero.detach(), torch.zeros(len(cameras), dtype=torch.long))
        loss = torch.stack([w * out.loss for w, out in outputs]).sum()
        norm = torch.stack([w * out.grad_norm for w, out in outputs]).norm()
        images = [out.image_loss for _, out in outputs if out.image_loss is not None]
        return GuidanceOutput(loss, norm, outputs[0][1].timesteps, torch.stack(images).sum() if images else None)

    def evaluate(
        self, comp_rgb: Float[Tensor, "B H W K"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "B h w 3"]]:
        """Return every part's images, their names numbered."""
        return {
            f"{name}-{i}": image
            for i, part in enumerate(self.parts)
            for name, image in part.evaluate(comp_rgb, cameras, step, generator).items()
        }

    def scene(self, bound: float) -> RadianceField | None:
        """Return the 3D prediction of the first part that has one."""
        return next((found for part in self.parts if (found := part.scene(bound)) is not None), None)

    def describe(self) -> dict[str, str | bool | None]:
        """Return the first part's record, and the paths of the others under "also"."""
        first, *rest = (part.describe() for part in self.parts)
        return {**first, "also": ", ".join(str(r.get("path")) for r in rest)}

    def state(self) -> dict[str, Any]:
        """Return every part's state."""
        states = {str(i): part.state() for i, part in enumerate(self.parts)}
        return {i: state for i, state in states.items() if state}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore every part's state."""
        for i, part in enumerate(self.parts):
            part.load_state(state.get(str(i), {}))
