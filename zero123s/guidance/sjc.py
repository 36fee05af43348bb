"""Score Jacobian Chaining (Wang et al. 2023): the score of the perturbed latents, averaged over perturbations."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from zero123s.guidance.sds import NoisedViews, NoisePredictor, Variant, variant


@variant("sjc")
class SJC(Variant):
    """-(D(z + s n) - z) / s with the denoiser D and s = sqrt((1 - a_t) / a_t), which is eps(z_t) - n.

    The denoised point is D(y) = y - s eps(y / sqrt(1 + s^2)), and y / sqrt(1 + s^2) is the noised latent z_t. Without
    `variance_reduction` the score is taken at the perturbed point, -(D(y) - y) / s = eps(z_t). The paper has no further
    weight: `weighting: uniform`.

    Args:
        guidance: whose model predicts.
        cfg: its settings, a `DistillationConfig`.
    """

    def __init__(self, guidance: NoisePredictor, cfg: Any) -> None:
        super().__init__(guidance, cfg)
        self.variance_reduction = cfg.variance_reduction

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return eps_guided(z_t) - n, or eps_guided(z_t) alone."""
        guided = self.guidance.guided_noise(views.noised, views.t, views.condition).to(views.latents)
        return guided - views.noise if self.variance_reduction else guided
