"""Interval Score Matching (Liang et al. 2023, LucidDreamer): two neighbouring points of one deterministic noising path."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.guidance.ddim_inversion import invert
from zero123s.guidance.sds import NoisedViews, NoisePredictor, Variant, variant


@variant("ism")
class ISM(Variant):
    """eps_guided(x_t, t, y) - eps(x_s, s), the paper's eq. 17, with s = t - `ism_delta_t`.

    x_s is the render taken up to level s by DDIM inversion without condition, in steps of `ism_delta_s`; one step more
    makes x_t. The drawn noise is not used.

    Args:
        guidance: whose model predicts.
        cfg: its settings, a `DistillationConfig`.
    """

    def __init__(self, guidance: NoisePredictor, cfg: Any) -> None:
        super().__init__(guidance, cfg)
        self.delta_t: int = cfg.ism_delta_t
        self.delta_s: int = cfg.ism_delta_s

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return the difference of the two predictions, view by view: every one is inverted to a level of its own."""
        rows = []
        for i in range(len(views.latents)):
            one = slice(i, i + 1)
            condition = tuple(x[one] for x in views.condition)
            rows.append(self._interval(views.latents[one], int(views.t[i]), condition))
        return torch.cat(rows)

    def _interval(self, latents: Float[Tensor, "1 C h w"], t: int, condition: tuple[Tensor, ...]) -> Tensor:
        guidance, model = self.guidance, self.guidance.model
        null = guidance.null_condition(guidance.denoiser_condition(condition))

        def predict(x: Tensor, at: Tensor) -> Tensor:
            return model.predict_noise(x, at, *null)

        s = max(t - self.delta_t, 0)
        x_s = invert(latents, interval_levels(s, self.delta_s), model.alphas_cumprod, predict)
        at_s, at_t = (torch.tensor([level], device=latents.device) for level in (s, t))
        eps_s = predict(x_s, at_s).to(latents)
        x_t = invert(x_s, [s, t], model.alphas_cumprod, lambda *_: eps_s)
        return guidance.guided_noise(x_t, at_t, condition).to(latents) - eps_s


def interval_levels(s: int, delta_s: int) -> list[int]:
    """Return the timesteps from -1 (no noise) up to s, `delta_s` apart but for the last step."""
    return [-1, *range(delta_s - 1, s, delta_s), s]
