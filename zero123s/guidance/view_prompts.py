"""View-dependent prompts for a text-to-image model, with negative prompts of the other sides (Perp-Neg)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.structures import Cameras

VIEWS = ("front", "side", "back", "overhead")
FRONT, SIDE, BACK, OVERHEAD = range(4)
_FORMS = {
    "suffix": lambda prompt, view: f"{prompt}, {view} view",
    "prefix": lambda prompt, view: f"{'backside' if view == 'back' else view} view of {prompt}",
}


@dataclass
class PromptConfig:
    """Prompts of a view-dependent text guidance."""

    prompt: str = ""
    """Description of the object."""
    negative_prompt: str = ""
    """Negative prompt."""
    prompt_front: str | None = None
    """Prompt of the front in place of `prompt` and its view."""
    prompt_side: str | None = None
    """Prompt of the sides."""
    prompt_back: str | None = None
    """Prompt of the back."""
    prompt_overhead: str | None = None
    """Prompt of views from above."""
    view_dependent_prompting: bool = True
    """Add the viewing direction to the prompt."""
    view_words: str = option("suffix", choices=tuple(_FORMS))
    """"suffix": "a corgi, front view"; "prefix": "front view of a corgi"."""
    front_threshold: float = option(45.0, low=0.0, high=180.0)
    """Degrees of azimuth from the front that count as front."""
    back_threshold: float = option(45.0, low=0.0, high=180.0)
    """Degrees of azimuth from behind that count as back."""
    overhead_threshold: float = option(60.0, low=0.0, high=90.0)
    """Degrees of elevation above which a view counts as overhead."""
    perp_neg: bool = False
    """Steer each view away from the other sides' prompts, at right angles to its own (Perp-Neg, Armandpour et al.
    2023).
    """
    perp_neg_f_sb: list[float] = option([1.0, 0.5, -0.606])
    """Side to back: weight -(a exp(-b r) + c) of "side", r = 0 at the back and 1 at the side."""
    perp_neg_f_fsb: list[float] = option([1.0, 0.5, 0.967])
    """Side to back: weight of "front"."""
    perp_neg_f_fs: list[float] = option([4.0, 0.5, -2.426])
    """Front to side: weight of "front", r = 0 at the side and 1 at the front."""
    perp_neg_f_sf: list[float] = option([4.0, 0.5, -2.426])
    """Front to side: weight of "side", r = 0 at the front and 1 at the side."""

    def __post_init__(self) -> None:
        for name in ("perp_neg_f_sb", "perp_neg_f_fsb", "perp_neg_f_fs", "perp_neg_f_sf"):
            if len(getattr(self, name)) != 3:
                raise ConfigError(f"system.guidance.{name}: expected [a, b, c], got {getattr(self, name)}.")
        if self.perp_neg and not self.view_dependent_prompting:
            raise ConfigError("system.guidance.perp_neg needs view_dependent_prompting: it weighs the sides' prompts.")


def prompts_of_views(cfg: PromptConfig) -> list[str]:
    """Return the prompt of every one of VIEWS."""
    if not cfg.view_dependent_prompting:
        return [cfg.prompt] * len(VIEWS)
    return [getattr(cfg, f"prompt_{view}") or _FORMS[cfg.view_words](cfg.prompt, view) for view in VIEWS]


def wrapped_azimuth_deg(cameras: Cameras) -> Float[Tensor, "B"]:
    """Return azimuths in [-180, 180); 0 is the front."""
    return (cameras.azimuth_deg + 180) % 360 - 180


def views_of(cfg: PromptConfig, cameras: Cameras) -> Int[Tensor, "B"]:
    """Return the index into VIEWS of every camera."""
    azimuth = wrapped_azimuth_deg(cameras)
    view = torch.full_like(azimuth, SIDE, dtype=torch.long)
    view[azimuth.abs() <= cfg.front_threshold] = FRONT
    view[azimuth.abs() >= 180 - cfg.back_threshold] = BACK
    view[cameras.elevation_deg > cfg.overhead_threshold] = OVERHEAD
    return view


class PerpNegCondition(NamedTuple):
    """Contexts and weights of Perp-Neg for every view."""

    positive: Float[Tensor, "B N C"]
    """Context of the view itself, between those of two sides."""
    negatives: Float[Tensor, "B 2 N C"]
    weights: Float[Tensor, "B 2"]
    """Weights of the subtracted contexts, at most zero up to rounding."""


def perp_neg_condition(
    cfg: PromptConfig, contexts: Float[Tensor, "4 N C"], negative: Float[Tensor, "1 N C"], cameras: Cameras
) -> PerpNegCondition:
    """Return contexts and weights by azimuth; a view from above has no negatives.

    Args:
        cfg: thresholds and the decay functions f.
        contexts: of the prompts of VIEWS.
        negative: of the negative prompt.
        cameras: B views.
    """
    azimuth = wrapped_azimuth_deg(cameras).abs().to(contexts)
    front = (azimuth < 90)[:, None, None]
    r = torch.where(azimuth < 90, 1 - azimuth / 90, 2 - azimuth / 90)
    nearer, further = (
        torch.where(front, contexts[FRONT], contexts[SIDE]),
        torch.where(front, contexts[SIDE], contexts[BACK]),
    )
    positive = r[:, None, None] * nearer + (1 - r)[:, None, None] * further
    negatives = torch.stack([nearer, torch.where(front, contexts[SIDE], contexts[FRONT])], dim=1)
    to_side = torch.stack([-_decay(cfg.perp_neg_f_fs, r), -_decay(cfg.perp_neg_f_sf, 1 - r)], dim=1)
    to_back = torch.stack([-_decay(cfg.perp_neg_f_sb, r), -_decay(cfg.perp_neg_f_fsb, r)], dim=1)
    weights = torch.where(front[:, :, 0], to_side, to_back)
    above = (cameras.elevation_deg > cfg.overhead_threshold).to(contexts.device)
    positive = torch.where(above[:, None, None], contexts[OVERHEAD], positive)
    negatives = torch.where(above[:, None, None, None], negative[0], negatives)
    return PerpNegCondition(positive, negatives, torch.where(above[:, None], 0.0, weights))


def _decay(abc: list[float], r: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    a, b, c = abc
    return a * torch.exp(-b * r) + c


def perpendicular(x: Float[Tensor, "B C h w"], y: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Return the part of x at right angles to y, view by view."""
    along = (x * y).flatten(1).sum(1) / y.square().flatten(1).sum(1).clamp_min(1e-6)
    return x - along[:, None, None, None] * y


def perp_neg_noise(
    predict: Callable[[Tensor], Float[Tensor, "B C h w"]],
    condition: PerpNegCondition,
    negative: Float[Tensor, "B N D"],
    scale: float,
) -> Float[Tensor, "B C h w"]:
    """Return eps_u + scale (e+ + sum_i w_i perp(e_i, e+)), e = eps - eps_u (Perp-Neg, eq. 8).

    Args:
        predict: contexts to noise predictions of the same views, for as many rounds of views as there are contexts.
        condition: of the views.
        negative: context of the unconditional branch.
        scale: of the guidance.
    """
    n = condition.negatives.shape[1]
    contexts = torch.cat([condition.positive, negative, *condition.negatives.unbind(1)])
    positive, uncond, *others = predict(contexts).chunk(2 + n)
    towards = positive - uncond
    away = sum(
        condition.weights[:, i, None, None, None] * perpendicular(e - uncond, towards) for i, e in enumerate(others)
    )
    return uncond + scale * (towards + away)
