"""Score distillation with a text-to-image model, conditioned on a view-dependent prompt."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.config.options import option
from zero123s.diffusion.conditioning import fit_image
from zero123s.diffusion.shared import shared
from zero123s.diffusion.text_model import TextModel, check_text_model, load_text_model
from zero123s.errors import ConfigError
from zero123s.guidance.base import GUIDANCES, BaseGuidance
from zero123s.guidance.distillation import ScoreDistillation
from zero123s.guidance.distillation_config import DistillationConfig
from zero123s.guidance.sds import VARIANTS, Condition
from zero123s.guidance.view_prompts import (
    PerpNegCondition,
    PromptConfig,
    perp_neg_condition,
    perp_neg_noise,
    prompts_of_views,
    views_of,
)
from zero123s.structures import Cameras, ReferenceView

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@GUIDANCES.register("stable-diffusion-guidance")
class StableDiffusionGuidance(ScoreDistillation):
    """Score distillation with a prompt and Stable Diffusion."""

    @dataclass
    class Config(BaseGuidance.Config, DistillationConfig, PromptConfig):
        """Settings of `stable-diffusion-guidance`."""

        checkpoint: str = option("stable-diffusion-v1-5/stable-diffusion-v1-5", path=True)
        """Folder of the diffusers layout, or hub id."""
        guidance_scale: float = option(100.0, low=0.0)
        """Classifier-free guidance scale; 7.5 with VSD."""
        scale_from: str = option("unconditional", choices=("unconditional", "conditional"))
        """Where guidance_scale starts: u + s (c - u) as in diffusers, or c + s (c - u) as in DreamFusion's code base.
        """
        dtype: str = option("auto", choices=("auto", "fp32", "fp16", "bf16"))
        """Precision of the networks; "auto" = fp16 on CUDA, else fp32."""

        def __post_init__(self) -> None:
            DistillationConfig.__post_init__(self)
            PromptConfig.__post_init__(self)

    cfg: Config
    model: TextModel

    @classmethod
    def requirements(cls, cfg: Config) -> dict[str, str | bool | None]:
        """Check prompt, path and packages; raises ConfigError, CheckpointError, MissingDependencyError."""
        if not cfg.prompt.strip():
            raise ConfigError(
                "The prompt of stable-diffusion-guidance is empty; describe one object, such as 'a corgi'."
            )
        check_text_model(cfg.checkpoint)
        VARIANTS[cfg.variant].check()
        return {"path": cfg.checkpoint, "family": "stable-diffusion", "bundled": False}

    def __init__(self, cfg: Config, reference: ReferenceView | None, device: torch.device | str = "cpu") -> None:
        super().__init__(cfg, reference, device)
        self.image_size = self.model.image_size
        self.positive = self.model.embed(prompts_of_views(cfg))
        self.negative = self.model.embed([cfg.negative_prompt])
        self.empty = self.model.embed([""])

    def load_model(self) -> TextModel:
        """Return the pipeline of the settings, shared between the runs of one process."""
        name, on_gpu = self.cfg.checkpoint, self.device.type == "cuda"
        dtype = DTYPES[self.cfg.dtype if self.cfg.dtype != "auto" else "fp16" if on_gpu else "fp32"]
        return shared(("text", name, dtype, str(self.device)), lambda: load_text_model(name, dtype, self.device))

    def condition(self, cameras: Cameras) -> Condition:
        """Return (context B N C,) of each view's prompt; with `perp_neg`, the contexts of the other sides too."""
        if self.cfg.perp_neg:
            return perp_neg_condition(self.cfg, self.positive, self.negative, cameras)
        return (self.positive[views_of(self.cfg, cameras).to(self.positive.device)],)

    def denoiser_condition(self, condition: Condition) -> Condition:
        """Return the view's own context."""
        return condition[:1]

    def unconditional(self, condition: Condition) -> Condition:
        """Return the negative prompt's context for every view."""
        return (self.negative.expand_as(condition[0]),)

    def null_condition(self, condition: Condition) -> Condition:
        """Return the empty prompt's context for every view."""
        return (self.empty.expand_as(condition[0]),)

    def guided_noise(
        self,
        noised: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        condition: Condition,
        scale: float | None = None,
    ) -> Float[Tensor, "B C h w"]:
        """Return the guided prediction, by `scale_from` or by Perp-Neg."""
        scale = self.cfg.guidance_scale if scale is None else scale
        own = self.denoiser_condition(condition)
        if not self.cfg.perp_neg:
            return super().guided_noise(noised, t, own, scale + (self.cfg.scale_from == "conditional"))

        def predict(contexts: Tensor) -> Tensor:
            rounds = len(contexts) // len(noised)
            return self.model.predict_noise(noised.repeat(rounds, 1, 1, 1), t.repeat(rounds), contexts)

        (negative,) = self.unconditional(own)
        return perp_neg_noise(predict, PerpNegCondition(*condition), negative, scale)

    def encode(
        self, comp_rgb: Float[Tensor, "B H W K"], posterior_noise: Float[Tensor, "B 4 h w"]
    ) -> Float[Tensor, "B 4 h w"]:
        """Return scaled latents of rendered views, sampled from the posterior; differentiable."""
        rgb = fit_image(comp_rgb.permute(0, 3, 1, 2), self.model.image_size)
        return self.model.encode_image(rgb, posterior_noise)

    def decode(self, latents: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        """Return images in [0, 1] of scaled latents."""
        return self.model.decode_latents(latents)

    def describe(self) -> dict[str, str | bool | None]:
        """Return which model, by hub id or by the folder's name, and prompt."""
        folder = Path(self.cfg.checkpoint)
        name = folder.resolve().name if folder.exists() else self.cfg.checkpoint
        return {"path": name, "family": "stable-diffusion", "bundled": False, "prompt": self.cfg.prompt}
