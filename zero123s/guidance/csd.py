"""Classifier Score Distillation (Yu et al. 2023): the direction from the unconditional to the conditional prediction
alone.
"""

from jaxtyping import Float
from torch import Tensor

from zero123s.guidance.sds import NoisedViews, Variant, variant


@variant("csd")
class CSD(Variant):
    """s (eps(x_t, y) - eps(x_t)), the paper's eq. 8: what SDS has besides the unconditional eps(x_t) - eps.

    s is `guidance_scale`, so that the gradient is as large as that part of SDS is. A scale of 1 needs both branches, too.
    """

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return the scaled difference of the two branches."""
        condition = self.guidance.denoiser_condition(views.condition)
        uncond, cond = self.guidance.predict(views.noised, views.t, condition)
        return self.guidance.cfg.guidance_scale * (cond - uncond).to(views.latents)
