"""What the gradient of score distillation is made of: the base class of variants, their registry, and SDS itself.

A further variant is a class with one method, under `@variant`; csd.py, nfsd.py, ism.py, sdi.py, sjc.py and vsd.py are examples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zero123s.structures import Cameras

Condition = tuple[Tensor, ...]
"""What a model's `predict_noise` takes after the timestep, one row per view."""


@runtime_checkable
class DiffusionModel(Protocol):
    """What score distillation needs of a latent diffusion model."""

    alphas_cumprod: Tensor
    n_timesteps: int
    latent_channels: int
    latent_size: int
    unet: Any

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return sqrt(a_t) latents + sqrt(1 - a_t) noise."""
        ...

    def predict_noise(self, latents: Tensor, t: Tensor, *condition: Tensor, unet: nn.Module | None = None) -> Tensor:
        """Return the noise in noisy latents as a denoiser (default: the model's own) predicts it."""
        ...


class NoisePredictor(Protocol):
    """What a variant asks of its guidance."""

    cfg: Any
    model: Any
    """A `DiffusionModel`."""

    def guided_noise(self, noised: Tensor, t: Tensor, condition: Condition, scale: float | None = None) -> Tensor:
        """Return the prediction under classifier-free guidance."""
        ...

    def predict(self, noised: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return the unconditional and the conditional prediction."""
        ...

    def unconditional(self, condition: Condition) -> Condition:
        """Return the condition of the unconditional branch: with text, the negative prompt."""
        ...

    def null_condition(self, condition: Condition) -> Condition:
        """Return the condition of the branch without any condition, of the same shapes."""
        ...

    def denoiser_condition(self, condition: Condition) -> Condition:
        """Return what of a condition the network's conditional branch takes."""
        ...


@dataclass(frozen=True)
class NoisedViews:
    """Views that go through the networks together: their latents without a graph, noised to timestep t."""

    latents: Float[Tensor, "B C h w"]
    noise: Float[Tensor, "B C h w"]
    t: Int[Tensor, "B"]
    noised: Float[Tensor, "B C h w"]
    condition: Condition
    extra: tuple[Tensor, ...]
    """What `Variant.draw` returned, the rows of these views."""
    share: float
    """These views as a share of the batch."""


class Variant:
    """How score distillation turns noise predictions into a gradient; the base class of all variants.

    Args:
        guidance: whose model predicts.
        cfg: its settings, a `DistillationConfig`.
    """

    @classmethod
    def check(cls) -> None:
        """Raise UserError where a package that the variant needs is missing; loads nothing."""

    def __init__(self, guidance: NoisePredictor, cfg: Any) -> None:
        self.guidance = guidance

    def begin(self, step: int, cameras: Cameras) -> None:
        """Prepare for a batch of global step `step`; called again where a step that ran out of memory is repeated."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return further random numbers for latents of shape (B, C, h, w), one row per view."""
        return ()

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return the latents' gradient before its weight w(t); called without autograd."""
        raise NotImplementedError(f"{type(self).__name__} must define residual().")

    def rendered_latents(self, views: NoisedViews) -> Float[Tensor, "B C h w"] | None:
        """Return latents that an image loss has in the place of the render's; None = the render itself."""
        return None

    def state(self) -> dict[str, Any]:
        """Return what was learned, for the checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned; raises CheckpointError where it does not fit."""


VARIANTS: dict[str, type[Variant]] = {}


def variant(name: str) -> Callable[[type[Variant]], type[Variant]]:
    """Register a variant under its name in `system.guidance.variant`."""

    def decorate(cls: type[Variant]) -> type[Variant]:
        VARIANTS[name] = cls
        return cls

    return decorate


@variant("sds")
class SDS(Variant):
    """Score Distillation Sampling (DreamFusion, eq. 3): predicted minus added noise."""

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return eps_guided(x_t) - eps."""
        guided = self.guidance.guided_noise(views.noised, views.t, views.condition)
        return guided.to(views.latents) - views.noise
