"""Score Distillation via Inversion (Lukoianov et al. 2024): the noise is the one that DDIM inversion finds in the render."""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.guidance.distillation import DistillationConfig, NoisedViews, ScoreDistillation, Variant, variant


@variant("sdi")
class SDI(Variant):
    """z - x0(z_t), where z_t is z inverted to level t, per latent number: the loss is a mean where SDS has a sum.

    Args:
        guidance: whose model predicts.
        cfg: its settings; `weighting: uniform` is the paper's.
    """

    def __init__(self, guidance: ScoreDistillation, cfg: DistillationConfig) -> None:
        super().__init__(guidance, cfg)
        self.n_steps = cfg.inversion_steps
        self.scale = cfg.inversion_guidance_scale
        self.eta = cfg.inversion_eta

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return by how much of a step each view is inverted further than t, and the noise of every step."""
        noise = torch.randn((shape[0], self.n_steps + 1, *shape[1:]), generator=generator)
        return torch.rand(shape[0], generator=generator), noise

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return (z - x0(z_t)) / (C h w), view by view: every one is inverted to a level of its own."""
        share, noise = (x.to(views.latents) for x in views.extra)
        rows = []
        for i in range(len(views.latents)):
            one = slice(i, i + 1)
            latents, t = views.latents[one], views.t[one]
            condition = tuple(x[one] for x in views.condition)
            levels = inversion_levels(int(t), float(share[i]), self.n_steps, self.guidance.model.n_timesteps)
            inverted = self._invert(latents, levels, condition, noise[i])
            found = self._noise_between(latents, inverted, levels[-1])
            noised = self.guidance.model.add_noise(latents, found, t)
            predicted = self.guidance.guided_noise(noised, t, condition).to(latents)
            rows.append(latents - self._denoised(noised, predicted, int(t)))
        return torch.cat(rows) / views.latents[0].numel()

    def _signal(self, t: int) -> Float[Tensor, ""]:
        """Return a_t; 1 below the schedule's first level, where there is no noise yet."""
        alphas = self.guidance.model.alphas_cumprod
        return alphas[t] if t >= 0 else torch.ones_like(alphas[0])

    def _denoised(self, noised: Tensor, predicted: Tensor, t: int) -> Tensor:
        a = self._signal(t)
        return (noised - (1 - a).sqrt() * predicted) / a.sqrt()

    def _noise_between(self, latents: Tensor, noised: Tensor, t: int) -> Tensor:
        a = self._signal(t)
        return (noised - a.sqrt() * latents) / (1 - a).sqrt()

    def _invert(
        self, latents: Tensor, levels: list[int], condition: tuple[Tensor, ...], noise: Float[Tensor, "S C h w"]
    ) -> Tensor:
        """Return the latents taken up through `levels` by DDIM's equation (Song et al. 2021, eq. 12) backwards."""
        x = latents
        for (now, after), drawn in zip(pairwise(levels), noise, strict=False):
            t: Int[Tensor, "1"] = torch.tensor([max(now, 0)], device=x.device)
            predicted = self.guidance.guided_noise(x, t, condition, self.scale).to(x)
            a, b = self._signal(now), self._signal(after)
            variance = ((1 - a) / (1 - b) * (1 - b / a)).clamp_min(0)  # DDPM's, of the step back from `after` to `now`
            x = b.sqrt() * self._denoised(x, predicted, now) + (1 - b).sqrt() * predicted
            x = x + self.eta * variance.sqrt() * drawn
        return x


def inversion_levels(t: int, share: float, n_steps: int, n_timesteps: int) -> list[int]:
    """Return the timesteps that inversion to level t goes through, from -1 (no noise) to t plus `share` of a step.

    Steps are n_timesteps / n_steps apart; those from t on are left out.
    """
    step = n_timesteps // n_steps
    last = min(t + int(share * step), n_timesteps - 1)
    return [-1, *(level for level in range(1, n_timesteps, step) if level < t), last]
