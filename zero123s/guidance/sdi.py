"""Score Distillation via Inversion (Lukoianov et al. 2024): the noise comes from DDIM inversion of the render."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.guidance.ddim_inversion import denoised, invert, signal_share
from zero123s.guidance.sds import NoisedViews, NoisePredictor, Variant, variant


@variant("sdi")
class SDI(Variant):
    """z - x0(z_t), where z_t is z inverted to level t, per latent number: the loss is a mean where SDS has a sum.

    Args:
        guidance: whose model predicts.
        cfg: its settings, a `DistillationConfig`; `weighting: uniform` is the paper's.
    """

    def __init__(self, guidance: NoisePredictor, cfg: Any) -> None:
        super().__init__(guidance, cfg)
        self.n_steps: int = cfg.inversion_steps
        self.scale: float = cfg.inversion_guidance_scale
        self.eta: float = cfg.inversion_eta

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return by how much of a step each view is inverted further than t, and the noise of every step."""
        noise = torch.randn((shape[0], self.n_steps + 1, *shape[1:]), generator=generator)
        return torch.rand(shape[0], generator=generator), noise

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return (z - x0(z_t)) / (C h w), view by view: every one is inverted to a level of its own."""
        model = self.guidance.model
        share, noise = (x.to(views.latents) for x in views.extra)
        rows = []
        for i in range(len(views.latents)):
            one = slice(i, i + 1)
            latents, t = views.latents[one], views.t[one]
            condition = tuple(x[one] for x in views.condition)
            levels = inversion_levels(int(t), float(share[i]), self.n_steps, model.n_timesteps)

            def predict(x: Tensor, at: Tensor, condition: tuple[Tensor, ...] = condition) -> Tensor:
                return self.guidance.guided_noise(x, at, condition, self.scale)

            inverted = invert(latents, levels, model.alphas_cumprod, predict, self.eta, noise[i])
            last = signal_share(model.alphas_cumprod, levels[-1])
            found = (inverted - last.sqrt() * latents) / (1 - last).sqrt()
            noised = model.add_noise(latents, found, t)
            predicted = self.guidance.guided_noise(noised, t, condition).to(latents)
            rows.append(latents - denoised(noised, predicted, model.alphas_cumprod[t]))
        return torch.cat(rows) / views.latents[0].numel()


def inversion_levels(t: int, share: float, n_steps: int, n_timesteps: int) -> list[int]:
    """Return the timesteps that inversion to level t goes through, from -1 (no noise) to t plus `share` of a step.

    Steps are n_timesteps / n_steps apart; those from t on are left out.
    """
    step = n_timesteps // n_steps
    last = min(t + int(share * step), n_timesteps - 1)
    return [-1, *(level for level in range(1, n_timesteps, step) if level < t), last]
