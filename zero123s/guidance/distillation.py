"""Score distillation: rendered views in, noise added, and the error of the predicted noise as their gradient.

`ScoreDistillation` is the loop that all guidances by a latent diffusion model share; guidance/zero123.py and
guidance/stable_diffusion.py say how their model encodes and conditions. What the gradient is made of is a `Variant`.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.config.schedule import Schedule
from zero123s.diffusion.conditioning import fit_image
from zero123s.guidance.base import BaseGuidance
from zero123s.guidance.sds import (
    VARIANTS,
    Condition,
    DiffusionModel,
    NoisedViews,
    annealed_timesteps,
    loss_with_gradient,
    prioritized_timesteps,
    rescale_guidance,
    sample_timesteps,
    sds_loss,
    threshold_noise,
    weighted_gradient,
)
from zero123s.ops.sections import section
from zero123s.structures import Cameras, GuidanceOutput, ReferenceView


class Draws(NamedTuple):
    """The random numbers of a step, one row per view, drawn for the whole batch whatever the parts it is computed in."""

    posterior_noise: Float[Tensor, "B C h w"]
    t: Int[Tensor, "B"]
    noise: Float[Tensor, "B C h w"]
    extra: tuple[Tensor, ...] = ()
    """What `Variant.draw` returned."""

    def rows(self, part: slice) -> "Draws":
        """Return the numbers of some of the views."""
        return Draws(self.posterior_noise[part], self.t[part], self.noise[part], tuple(x[part] for x in self.extra))


class Distilled(NamedTuple):
    """Latents of the views, or their images, with their graph, and the gradient with respect to them."""

    rendered: Float[Tensor, "B C h w"]
    grad: Float[Tensor, "B C h w"]


class ScoreDistillation(BaseGuidance):
    """Base class of guidances by a latent diffusion model.

    A subclass sets `model` and defines `encode`, `decode`, `condition` and `unconditional`. Its `Config` inherits
    `DistillationConfig` and has a `guidance_scale`.
    """

    cfg: Any
    model: DiffusionModel
    resizes_to_square = True

    def __init__(self, cfg: Any, reference: ReferenceView | None, device: torch.device | str = "cpu") -> None:
        super().__init__(cfg, reference, device)
        self.min_percent = Schedule(cfg.min_step_percent, "system.guidance.min_step_percent")
        self.max_percent = Schedule(cfg.max_step_percent, "system.guidance.max_step_percent")
        self.grad_clip = None if cfg.grad_clip is None else Schedule(cfg.grad_clip, "system.guidance.grad_clip")
        self.model = self.load_model()
        self.variant = VARIANTS[cfg.variant](self, cfg)

    # ------------------------------------------------------------ what a subclass defines

    def load_model(self) -> Any:
        """Return the frozen diffusion model; raises CheckpointError."""
        raise NotImplementedError(f"{type(self).__name__} must define load_model().")

    def encode(
        self, comp_rgb: Float[Tensor, "B H W K"], posterior_noise: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B C h w"]:
        """Return scaled latents of rendered views, sampled from the posterior; differentiable."""
        raise NotImplementedError(f"{type(self).__name__} must define encode().")

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Return images in [0, 1] of scaled latents."""
        raise NotImplementedError(f"{type(self).__name__} must define decode().")

    def condition(self, cameras: Cameras) -> Condition:
        """Return the condition of every view."""
        raise NotImplementedError(f"{type(self).__name__} must define condition().")

    def unconditional(self, condition: Condition) -> Condition:
        """Return the condition of the unconditional branch of classifier-free guidance, of the same shapes."""
        raise NotImplementedError(f"{type(self).__name__} must define unconditional().")

    def view_weights(self, cameras: Cameras) -> Float[Tensor, "B"] | None:
        """Return by what each view's gradient is multiplied; None = 1."""
        return None

    def null_condition(self, condition: Condition) -> Condition:
        """Return the condition of a branch that is given nothing, of the same shapes; with text, the empty prompt."""
        return self.unconditional(condition)

    # ------------------------------------------------------------ the step

    def __call__(
        self, comp_rgb: Float[Tensor, "B H W K"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> GuidanceOutput:
        """Return the loss of rendered views; its gradient reaches `comp_rgb` through the encoder."""
        cameras = cameras.to(self.device)
        batch = len(cameras)
        self.variant.begin(step, cameras)
        draws = self.draw(batch, step, generator)
        draws = draws._replace(extra=self.variant.draw(tuple(draws.noise.shape), generator))
        size = min(self.cfg.micro_batch or batch, -(-batch // self.n_parts))
        if size < batch:
            losses, grad_norm = self._in_micro_batches(comp_rgb, cameras, draws, step, size)
        else:
            distilled = self._distill(comp_rgb, cameras, draws, step, 1.0)
            losses, grad_norm = [sds_loss(*pair) for pair in distilled], distilled[0].grad.norm()
        return GuidanceOutput(losses[0], grad_norm, draws.t, losses[1] if len(losses) > 1 else None)

    def draw(self, batch: int, step: int, generator: torch.Generator) -> Draws:
        """Return the random numbers of global step `step`."""
        shape = (batch, self.model.latent_channels, self.model.latent_size, self.model.latent_size)
        posterior_noise = torch.randn(shape, generator=generator).to(self.device)
        t = self.timesteps(batch, step, generator).to(self.device)
        return Draws(posterior_noise, t, torch.randn(shape, generator=generator).to(self.device))

    def timesteps(self, batch: int, step: int, generator: torch.Generator) -> Int[Tensor, "B"]:
        """Return the timestep of every view, drawn or annealed."""
        levels = (batch, self.min_percent(step), self.max_percent(step), self.model.n_timesteps)
        if self.cfg.timesteps == "uniform":
            return sample_timesteps(*levels, generator)
        progress = min(1.0, step / self.cfg.anneal_steps)
        if self.cfg.timesteps == "dreamtime":
            return prioritized_timesteps(*levels[:3], self.model.alphas_cumprod, progress)
        return annealed_timesteps(*levels, progress, self.cfg.timesteps)

    def _distill(
        self, comp_rgb: Float[Tensor, "B H W K"], cameras: Cameras, draws: Draws, step: int, share: float
    ) -> list[Distilled]:
        """Return the views' latents and their gradient; with `image_loss`, the images and theirs as well."""
        with section("guidance: encode"):
            latents = self.latents_of(comp_rgb, draws.posterior_noise)
        noise = draws.noise.to(latents)
        with torch.no_grad(), section("guidance: network"):
            noised = self.model.add_noise(latents, noise, draws.t)
            condition = self.condition(cameras)
            views = NoisedViews(latents.detach(), noise, draws.t, noised, condition, draws.extra, share)
            residual = self.variant.residual(views)
        clip = None if self.grad_clip is None else self.grad_clip(step)
        alphas = self.model.alphas_cumprod[draws.t].to(latents)
        settings = (alphas, self.cfg.weighting, self.cfg.grad_normalize, clip)
        distilled = [Distilled(latents, weighted_gradient(residual, *settings))]
        if self.cfg.image_loss:
            with torch.no_grad(), section("guidance: decode"):
                difference = self._image_difference(comp_rgb, views, residual)
            distilled.append(Distilled(self._channels_first(comp_rgb), weighted_gradient(difference, *settings)))
        weights = self.view_weights(cameras)
        if weights is None:
            return distilled
        return [Distilled(rendered, weights[:, None, None, None] * grad) for rendered, grad in distilled]

    def _in_micro_batches(
        self, comp_rgb: Float[Tensor, "B H W K"], cameras: Cameras, draws: Draws, step: int, size: int
    ) -> tuple[list[Float[Tensor, ""]], Float[Tensor, ""]]:
        """Return losses and gradient norm of the batch; every part goes to the networks and back before the next one."""
        grads, norms = [], []
        for start in range(0, len(cameras), size):
            part = slice(start, start + size)
            rgb = comp_rgb[part].detach().requires_grad_()
            with torch.enable_grad():
                distilled = self._distill(rgb, cameras.select(part), draws.rows(part), step, len(rgb) / len(cameras))
            grads.append([torch.autograd.grad(x, rgb, grad / len(cameras))[0] for x, grad in distilled])
            norms.append([grad.norm() for _, grad in distilled])
        losses = [
            loss_with_gradient(comp_rgb, torch.cat(g), 0.5 * torch.stack(n).square().sum() / len(cameras))
            for g, n in zip(zip(*grads, strict=True), zip(*norms, strict=True), strict=True)
        ]
        return losses, torch.stack([norm[0] for norm in norms]).norm()

    def _channels_first(self, comp_rgb: Float[Tensor, "B H W K"]) -> Float[Tensor, "B K S S"]:
        return fit_image(comp_rgb.permute(0, 3, 1, 2), self.image_size or comp_rgb.shape[1])

    def _image_difference(
        self, comp_rgb: Float[Tensor, "B H W K"], views: NoisedViews, residual: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B 3 H W"]:
        """Return (render - decoded denoised latents) sqrt(a_t) / sqrt(1 - a_t), at the decoder's size (HiFA)."""
        a = self.model.alphas_cumprod[views.t].to(residual)[:, None, None, None]
        ratio = a.sqrt() / (1 - a).sqrt()
        rendered = self.variant.rendered_latents(views)
        denoised = self.decode((views.latents if rendered is None else rendered) - residual / ratio)
        return ((self._channels_first(comp_rgb) if rendered is None else self.decode(rendered)) - denoised) * ratio

    def latents_of(
        self, rendered: Float[Tensor, "B H W K"], posterior_noise: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B C h w"]:
        """Return the scaled latents of rendered views: those of an image, or a render of latents itself, resized."""
        if rendered.shape[-1] == 3:
            return self.encode(rendered, posterior_noise)
        return fit_image(rendered.permute(0, 3, 1, 2), self.model.latent_size)

    def predict(
        self, noised: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], condition: Condition
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Return the unconditional and the conditional noise prediction, by one call of the network."""
        both = [torch.cat([u, c]) for u, c in zip(self.unconditional(condition), condition, strict=True)]
        uncond, cond = self.model.predict_noise(noised.repeat(2, 1, 1, 1), t.repeat(2), *both).chunk(2)
        return uncond, cond

    def denoiser_condition(self, condition: Condition) -> Condition:
        """Return what of a condition the network's conditional branch takes."""
        return condition

    def guided_noise(
        self,
        noised: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        condition: Condition,
        scale: float | None = None,
    ) -> Float[Tensor, "B C h w"]:
        """Return the prediction under classifier-free guidance, eps_u + scale (eps_c - eps_u); None = `guidance_scale`."""
        factor: float = self.cfg.guidance_scale if scale is None else scale
        if factor == 1:
            guided = self.model.predict_noise(noised, t, *condition)
        else:
            uncond, cond = self.predict(noised, t, condition)
            guided = uncond + factor * (cond - uncond)
            if self.cfg.guidance_rescale > 0:
                guided = rescale_guidance(guided, cond, self.cfg.guidance_rescale)
        if self.cfg.latent_quantile == 1:
            return guided
        return threshold_noise(guided, noised, self.model.alphas_cumprod[t].to(noised), self.cfg.latent_quantile)

    # ------------------------------------------------------------ images and state

    @torch.no_grad()
    def evaluate(
        self, comp_rgb: Float[Tensor, "B H W K"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "B h w 3"]]:
        """Return the rendered, noised and one-step denoised views at the resolution of the network."""
        cameras = cameras.to(self.device)
        posterior_noise, t, noise, _ = self.draw(len(cameras), step, generator)
        latents = self.latents_of(comp_rgb, posterior_noise)
        noised = self.model.add_noise(latents, noise.to(latents), t)
        noise_pred = self.guided_noise(noised, t, self.condition(cameras))
        alpha = self.model.alphas_cumprod[t].to(latents)[:, None, None, None]
        denoised = (noised - (1 - alpha).sqrt() * noise_pred) / alpha.sqrt()
        images = {"rendered": latents, "noised": noised, "denoised": denoised}
        return {name: self.decode(z).permute(0, 2, 3, 1) for name, z in images.items()}

    def state(self) -> dict[str, Any]:
        """Return what the variant has learned."""
        return self.variant.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what the variant had learned; raises CheckpointError where it does not fit."""
        if state:
            self.variant.load_state(state)
