"""Noise-Free Score Distillation (Katzir et al. 2023): SDS's residual without the part that is only noise."""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.guidance.sds import NoisedViews, Variant, variant

LOW_NOISE_STEPS = 200
"""Timesteps, of 1000, below which the unconditional prediction is nearly free of noise and is taken as the domain's
direction.
"""


@variant("nfsd")
class NFSD(Variant):
    """d_D + s d_C, the paper's eq. 10: the domain's direction and s times the condition's.

    d_C = eps(x_t, y) - eps(x_t). d_D = eps(x_t) below t = 200, above it eps(x_t) - eps(x_t, negative prompt). Zero123 has
    no negative prompt: there d_D is 0 above t = 200. s is `guidance_scale`, 7.5 in the paper.
    """

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return d_D + s d_C."""
        model, t = self.guidance.model, views.t
        condition = self.guidance.denoiser_condition(views.condition)
        rounds = (self.guidance.null_condition(condition), self.guidance.unconditional(condition), condition)
        stacked = [torch.cat(parts) for parts in zip(*rounds, strict=True)]
        predicted = model.predict_noise(views.noised.repeat(3, 1, 1, 1), t.repeat(3), *stacked).to(views.latents)
        null, negative, cond = predicted.chunk(3)
        is_low = (t < LOW_NOISE_STEPS * model.n_timesteps / 1000)[:, None, None, None]
        domain = torch.where(is_low, null, null - negative)
        return domain + self.guidance.cfg.guidance_scale * (cond - null)
