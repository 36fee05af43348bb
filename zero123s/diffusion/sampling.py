"""Samples novel views: DDIM, Euler and DPM-Solver of diffusers, and the original sampler with its own timesteps."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from zero123s.diffusion.model_config import ModelConfig
from zero123s.errors import ConfigError
from zero123s.registry import nearest

SAMPLERS = ("ddim", "euler", "dpm-solver", "original")
Progress = Callable[[int, int], None]


@runtime_checkable
class Denoiser(Protocol):
    """The parts of a model that a sampler uses."""

    config: ModelConfig
    alphas_cumprod: Float[Tensor, "T"]

    @property
    def n_timesteps(self) -> int:
        """Length of the noise schedule."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        ...

    def guided_noise(self, latents: Tensor, t: Tensor, context: Tensor, concat: Tensor, scale: float) -> Tensor:
        """Predict the noise with classifier-free guidance.

        Args:
            latents: B 4 h w, scaled and noised.
            t: B, timesteps.
            context: B N C, for cross-attention.
            concat: B K h w, concatenated to the latents.
            scale: strength of guidance.

        Returns:
            B 4 h w.
        """
        ...


@torch.no_grad()
def sample_latents(
    model: Denoiser,
    noise: Float[Tensor, "B 4 h w"],
    context: Float[Tensor, "B N C"],
    concat: Float[Tensor, "B K h w"],
    steps: int = 50,
    scale: float = 3.0,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    sampler: str = "ddim",
    progress: Progress | None = None,
) -> Float[Tensor, "B 4 h w"]:
    """Denoise unit noise to scaled latents.

    Args:
        model: predicts the noise.
        noise: B 4 h w, standard normal.
        context: B N C, from `model.project`.
        concat: B K h w, from `model.concat_for`.
        steps: network evaluations per view, 1 to the length of the noise schedule.
        scale: strength of classifier-free guidance.
        eta: fresh noise per step of `ddim` and `original`, 0 (none) to 1.
        generator: source of that noise; None = seed 0.
        sampler: "ddim", "euler", "dpm-solver", or "original" (the released code's own list of timesteps, which skips
            the noisiest one).
        progress: called with (done, total) after every step.

    Returns:
        B 4 h w, scaled latents.

    Raises:
        ConfigError: an unknown sampler, or steps or eta out of range.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"Unknown sampler '{sampler}'.{nearest(sampler, list(SAMPLERS))} Known: {', '.join(SAMPLERS)}."
        )
    if not 1 <= steps <= model.n_timesteps:
        raise ConfigError(f"steps = {steps} must lie in 1 to {model.n_timesteps}.")
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta = {eta} must lie in 0 to 1.")
    generator = generator or torch.Generator().manual_seed(0)

    def guided(latents: Tensor, t: Tensor) -> Tensor:
        return model.guided_noise(latents, t.to(model.device).expand(len(latents)), context, concat, scale)

    if sampler in ("ddim", "original"):
        leading = original_timesteps(steps, model.n_timesteps) if sampler == "original" else None
        timesteps = ddim_timesteps(steps, model.n_timesteps) if leading is None else leading
        stride = model.n_timesteps // steps
        return _ddim(model, guided, noise, timesteps, stride, eta, generator, progress)
    return _with_scheduler(_scheduler(sampler, model), guided, noise, steps, progress)


def ddim_timesteps(steps: int, n_timesteps: int = 1000) -> list[int]:
    """Return the evenly spaced timesteps of diffusers' "leading" spacing with offset 1.

    Args:
        steps: network evaluations.
        n_timesteps: length of the noise schedule.

    Returns:
        Timesteps, noisiest first.

    Example:
        >>> from zero123s.diffusion.sampling import ddim_timesteps
        >>> ddim_timesteps(4)
        [751, 501, 251, 1]
    """
    config = {"num_train_timesteps": n_timesteps, "timestep_spacing": "leading", "steps_offset": 1}
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    return [min(int(t), n_timesteps - 1) for t in scheduler.timesteps]


def original_timesteps(steps: int, n_timesteps: int = 1000) -> list[int]:
    """Return the timesteps that the released sampler uses for a requested number of steps.

    Its list is range(0, T, T // steps) + 1 without the noisiest entry, so 50 steps make 49 from t = 961 and 75 make 76.

    Args:
        steps: requested network evaluations.
        n_timesteps: length T of the noise schedule.

    Returns:
        Timesteps, noisiest first.

    Raises:
        ConfigError: one of the few counts (27, 36, ...) with which the list reaches past the schedule.

    Example:
        >>> from zero123s.diffusion.sampling import original_timesteps
        >>> timesteps = original_timesteps(50)
        >>> len(timesteps), timesteps[0], timesteps[-1]
        (49, 961, 1)
    """
    visited = [t + 1 for t in range(0, n_timesteps, n_timesteps // steps)]
    if visited[-1] >= n_timesteps:
        raise ConfigError(f"The original sampler cannot make {steps} steps: its last timestep would be {visited[-1]}.")
    return visited[-2::-1] if len(visited) > 1 else visited


def _ddim(
    model: Denoiser,
    guided: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    timesteps: list[int],
    stride: int,
    eta: float,
    generator: torch.Generator,
    progress: Progress | None,
) -> Tensor:
    """Song et al. 2021, "Denoising Diffusion Implicit Models", equation 12, without clipping.

    The last step ends at alphas_cumprod[0], not at 1, as in the original.
    """
    alphas = model.alphas_cumprod.to(latents.dtype)
    for done, t in enumerate(timesteps):
        signal, signal_next = alphas[t], alphas[max(t - stride, 0)]
        eps = guided(latents, torch.tensor([t]))
        clean = (latents - (1 - signal).sqrt() * eps) / signal.sqrt()
        sigma = eta * ((1 - signal_next) / (1 - signal) * (1 - signal / signal_next)).clamp(min=0).sqrt()
        latents = signal_next.sqrt() * clean + (1 - signal_next - sigma**2).clamp(min=0).sqrt() * eps
        if eta > 0:
            latents = latents + sigma * _randn(tuple(latents.shape), generator).to(latents)
        if progress:
            progress(done + 1, len(timesteps))
    return latents


def _scheduler(sampler: str, model: Denoiser) -> Any:
    config = {
        "num_train_timesteps": model.n_timesteps,
        "beta_start": model.config.linear_start,
        "beta_end": model.config.linear_end,
        # The original calls this schedule "linear".
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    }
    return EulerDiscreteScheduler(**config) if sampler == "euler" else DPMSolverMultistepScheduler(**config)


def _with_scheduler(
    scheduler: Any,
    guided: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    steps: int,
    progress: Progress | None,
) -> Tensor:
    """Run a deterministic scheduler of diffusers."""
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    for done, t in enumerate(scheduler.timesteps):
        eps = guided(scheduler.scale_model_input(latents, t), t.reshape(1).long())
        latents = scheduler.step(eps, t, latents).prev_sample
        if progress:
            progress(done + 1, len(scheduler.timesteps))
    return latents


def _randn(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)
