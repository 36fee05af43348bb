"""The interface of guidances: a differentiable loss on rendered views."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.registry import Registry
from zero123s.structures import Cameras, GuidanceOutput, RadianceField, ReferenceView


class BaseGuidance:
    """Base class of `guidance_type`. Frozen networks: no module of the system, so never in its checkpoints.

    Args:
        cfg: the parsed `Config` of the subclass.
        reference: the input view, or several, that condition the guidance, at the largest training size or above; None where
            there is none.
        device: where the networks live.
    """

    @dataclass
    class Config:
        """Settings common to all guidances."""

    @classmethod
    def check(cls, cfg: Any) -> None:
        """Check what the types of `cfg` do not express, and type nested sections in place; raises ConfigError."""

    @classmethod
    def requirements(cls, cfg: Any) -> dict[str, str | bool | None]:
        """Check that the model exists, loading nothing; returns the part of `describe()` that is already known.

        Raises:
            CheckpointError: it is missing.
        """
        return {}

    resizes_to_square: bool = False
    """Whether every image is resized to a square, so that others would be distorted."""
    image_size: int | None = None
    """Edge in pixels of the networks' input; None = any."""
    n_parts: int = 1
    """Parts that a batch is computed in, one after the other, with the same gradients; raised where memory runs out."""

    def __init__(self, cfg: Config, reference: ReferenceView | None, device: torch.device | str = "cpu") -> None:
        self.cfg = cfg
        self.device = torch.device(device)

    def __call__(
        self, comp_rgb: Float[Tensor, "B H W K"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> GuidanceOutput:
        """Return the loss of rendered views, differentiable with respect to `comp_rgb`."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__().")

    def evaluate(
        self, comp_rgb: Float[Tensor, "B H W K"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "B h w 3"]]:
        """Return named images of the guidance's input and prediction (noised, denoised); empty by default."""
        return {}

    def scene(self, bound: float) -> RadianceField | None:
        """Return the model's own 3D prediction of the object, in the cube [-bound, bound]^3; None = it has none."""
        return None

    def sample(self, cameras: Cameras, steps: int, generator: torch.Generator) -> Float[Tensor, "V h w 3"] | None:
        """Sample views on a white background, in `steps` denoising steps; None = the model cannot."""
        return None

    def state(self) -> dict[str, Any]:
        """Return trained parts of the guidance for the checkpoint; most have none."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned at another moment."""

    def describe(self) -> dict[str, str | bool | None]:
        """Return the model's entry in run.json: path, hash, family, bundled or not."""
        return {}


GUIDANCES: Registry[BaseGuidance] = Registry("guidance", BaseGuidance)
