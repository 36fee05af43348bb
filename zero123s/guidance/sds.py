"""The formulas of score distillation, independent of any network (DreamFusion, eq. 3).

A further variant is a class with one method, under `@variant`; csd.py, nfsd.py, ism.py, sdi.py, sjc.py and vsd.py are
examples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zero123s.structures import Cameras

Condition = tuple[Tensor, ...]
"""Arguments of a model's `predict_noise` after the timestep, one row per view."""


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


@runtime_checkable
class NoisePredictor(Protocol):
    """What a variant needs of its guidance."""

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
    """The rows of these views of the result of `Variant.draw`."""
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


def sample_timesteps(
    batch_size: int, min_percent: float, max_percent: float, n_timesteps: int, generator: torch.Generator
) -> Int[Tensor, "B"]:
    """Draw t uniformly from {int(T min), ..., int(T max)}, at most T - 1, one per view."""
    low, high = int(n_timesteps * min_percent), int(n_timesteps * max_percent)
    return torch.randint(low, high + 1, (batch_size,), generator=generator).clamp_max(n_timesteps - 1)


def annealed_timesteps(
    batch_size: int, min_percent: float, max_percent: float, n_timesteps: int, progress: float, mode: str
) -> Int[Tensor, "B"]:
    """Return one timestep for all views, falling from T max to T min.

    Args:
        progress: share of the annealing that is done, in [0, 1].
        mode: "linear", or "sqrt" (HiFA, eq. 8).
    """
    share = progress if mode == "linear" else progress**0.5
    percent = max_percent - (max_percent - min_percent) * share
    return torch.full((batch_size,), min(n_timesteps - 1, round(n_timesteps * percent)))


def prioritized_timesteps(
    batch_size: int, min_percent: float, max_percent: float, alphas_cumprod: Float[Tensor, "T"], progress: float
) -> Int[Tensor, "B"]:
    """Return one timestep for all views by DreamTime's time prioritized schedule (Huang et al. 2023, eq. 5 and 6).

    The share of the run spent above level t is the share that W(t) = sqrt((1 - a_t) / a_t) g(t) has above t, where g is 1
    from t = 500 to 800 and falls off as a Gaussian of 100 below and 300 above (of 1000 timesteps).

    Args:
        alphas_cumprod: T, the noise schedule.
        progress: share of the schedule that is done, in [0, 1].
    """
    n = len(alphas_cumprod)
    t = torch.arange(n, dtype=torch.float64)
    distance = torch.where(
        t > 0.8 * n, (t - 0.8 * n) / (0.3 * n), torch.where(t < 0.5 * n, (t - 0.5 * n) / (0.1 * n), 0.0)
    )
    a = alphas_cumprod.detach().cpu().double()
    weight = ((1 - a) / a).sqrt() * torch.exp(-0.5 * distance.square())
    low, high = int(n * min_percent), min(int(n * max_percent), n - 1)
    spent = weight[low : high + 1].flip(0).cumsum(0)  # from the noisiest level down
    below = int(torch.searchsorted(spent, progress * spent[-1]).clamp_max(high - low))
    return torch.full((batch_size,), high - below)


def rescale_guidance(
    guided: Float[Tensor, "B C h w"], cond: Float[Tensor, "B C h w"], share: float
) -> Float[Tensor, "B C h w"]:
    """Return share * guided * std(cond) / std(guided) + (1 - share) * guided, deviations by view (Lin et al. 2023, eq.
    15, 16).
    """
    deviations = [x.flatten(1).std(dim=1)[:, None, None, None] for x in (cond, guided)]
    return guided * (share * deviations[0] / deviations[1].clamp_min(1e-8) + 1 - share)


def threshold_noise(
    noise_pred: Float[Tensor, "B C h w"],
    noised: Float[Tensor, "B C h w"],
    alphas_cumprod_t: Float[Tensor, "B"],
    quantile: float,
) -> Float[Tensor, "B C h w"]:
    """Return the prediction whose denoised latents are clamped to a quantile of their absolute values, view by view.

    Dynamic thresholding (Saharia et al. 2022, Imagen, section 2.3) without its division: latents have no range of their own.
    """
    a = alphas_cumprod_t[:, None, None, None]
    clean = (noised - (1 - a).sqrt() * noise_pred) / a.sqrt()
    limit = clean.flatten(1).abs().float().quantile(quantile, dim=1).to(clean)[:, None, None, None]
    return (noised - a.sqrt() * clean.clamp(-limit, limit)) / (1 - a).sqrt()


def step_weight(alphas_cumprod_t: Float[Tensor, "B"], weighting: str) -> Float[Tensor, "B"]:
    """Return w(t) by name: "sds" 1 - a_t, "uniform" 1, "fantasia3d" sqrt(a_t) (1 - a_t)."""
    if weighting == "uniform":
        return torch.ones_like(alphas_cumprod_t)
    weight = 1 - alphas_cumprod_t
    return alphas_cumprod_t.sqrt() * weight if weighting == "fantasia3d" else weight


def weighted_gradient(
    residual: Float[Tensor, "B C h w"],
    alphas_cumprod_t: Float[Tensor, "B"],
    weighting: str = "sds",
    normalize: bool = False,
    clip: float | None = None,
) -> Float[Tensor, "B C h w"]:
    """Return w(t) residual, non-finite entries zeroed, every view's gradient divided by its norm, clamped to +-clip."""
    grad = torch.nan_to_num(step_weight(alphas_cumprod_t, weighting)[:, None, None, None] * residual)
    if normalize:
        grad = grad / grad.flatten(1).norm(dim=1).clamp_min(1e-8)[:, None, None, None]
    return grad if clip is None else grad.clamp(-clip, clip)


def sds_loss(latents: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Return a loss whose gradient with respect to `latents` is `grad / B`.

    0.5 * ||z - stop_gradient(z - grad)||^2 / B, so that its value is 0.5 * ||grad||^2 / B.
    """
    target = (latents - grad).detach()
    return 0.5 * (latents - target).square().sum() / latents.shape[0]


def loss_with_gradient(
    images: Float[Tensor, "B H W C"], grad: Float[Tensor, "B H W C"], value: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return a loss of the given value whose gradient with respect to `images` is `grad`, computed beforehand."""
    carrier = (images * grad).sum()
    return carrier - carrier.detach() + value.detach()
