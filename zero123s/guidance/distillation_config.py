"""Settings of every guidance by score distillation."""

from dataclasses import dataclass
from typing import Any

from zero123s.config.options import option
from zero123s.config.schedule import Schedule
from zero123s.errors import ConfigError
from zero123s.guidance import csd, ism, nfsd, sdi, sjc, vsd  # noqa: F401
from zero123s.guidance.sds import VARIANTS
from zero123s.registry import nearest


@dataclass
class DistillationConfig:
    """Settings of every guidance by score distillation."""

    min_step_percent: Any = option(0.02, low=0.0, high=1.0, schedule=True)
    """Smallest noise level as a share of the schedule; number or schedule."""
    max_step_percent: Any = option(0.98, low=0.0, high=1.0, schedule=True)
    """Largest noise level; number or schedule."""
    timesteps: str = option("uniform", choices=("uniform", "linear", "sqrt", "dreamtime"))
    """"uniform": drawn anew for every view; the others fall from the largest to the smallest over anneal_steps: "linear",
    "sqrt" (HiFA, eq. 8), "dreamtime" (DreamTime's time prioritized schedule, slow at middle levels)."""
    anneal_steps: int = option(10000, low=1)
    """Steps over which "linear", "sqrt" and "dreamtime" come down."""
    weighting: str = option("sds", choices=("sds", "uniform", "fantasia3d"))
    """Weight over t of the gradient: 1 - a_t (sds), 1 (uniform) or sqrt(a_t) (1 - a_t) (fantasia3d)."""
    grad_normalize: bool = False
    """Divide every view's gradient by its norm, as classifier-free scales of 100 need at changing noise levels."""
    grad_clip: Any = option(None, low=0.0, schedule=True)
    """Largest absolute latent gradient; number, schedule, or None."""
    guidance_rescale: float = option(0.0, low=0.0, high=1.0)
    """Share by which the guided prediction is brought back to the conditional one's standard deviation (Lin et al. 2023,
    eq. 15 and 16; they use 0.7): large guidance scales then do not overexpose."""
    latent_quantile: float = option(1.0, above=0.0, high=1.0)
    """Clamp the denoised latents that a guided prediction stands for to this quantile of their absolute values, view by view
    (dynamic thresholding as in Imagen; 0.995 there); 1 = no clamp."""
    micro_batch: int = option(0, low=0)
    """Views per pass through the networks, to save memory; the gradients are the same; 0 = the whole batch."""
    image_loss: bool = False
    """Also compare the rendered image with the decoded one-step denoised latents (HiFA, eq. 9); weighted by
    system.loss.lambda_sds_img; SDS and VSD only."""
    variant: str = "sds"
    """"sds": compare the predicted noise with the added noise; "vsd": with the prediction of a LoRA copy of the denoiser trained on the current renderings (ProlificDreamer); "csd": conditional against unconditional prediction (Classifier Score
    Distillation); "nfsd": Noise-Free Score Distillation; "ism": Interval Score Matching (LucidDreamer); "sdi": noise by DDIM
    inversion; "sjc": Score Jacobian Chaining."""
    lora_rank: int = option(4, low=1, high=1024)
    """VSD: rank of the LoRA adapters."""
    lora_lr: float = option(1e-4, above=0.0)
    """VSD: learning rate of the adapters."""
    variance_reduction: bool = True
    """SJC: subtract the added noise from the predicted one, which leaves the expected gradient as it is."""
    ism_delta_t: int = option(50, low=1, high=1000)
    """ISM: timesteps between the two levels that are compared."""
    ism_delta_s: int = option(200, low=1, high=1000)
    """ISM: timesteps of each DDIM inversion step below them."""
    inversion_steps: int = option(10, low=1, high=1000)
    """SDI: DDIM steps over the whole noise schedule; only those below the drawn level are computed."""
    inversion_guidance_scale: float = -7.5
    """SDI: classifier-free guidance scale of the inversion."""
    inversion_eta: float = option(0.3, low=0.0)
    """SDI: share of DDPM's noise that each inversion step adds."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            known = sorted(VARIANTS)
            raise ConfigError(
                f"system.guidance.variant: '{self.variant}' is not known.{nearest(self.variant, known)} Known: "
                f"{', '.join(known)}."
            )
        if self.image_loss and self.variant not in ("sds", "vsd"):
            raise ConfigError(f"system.guidance.image_loss is defined for SDS and VSD, not for variant {self.variant}.")
        low = Schedule(self.min_step_percent, "system.guidance.min_step_percent")
        high = Schedule(self.max_step_percent, "system.guidance.max_step_percent")
        # Both are straight between their points, so a crossing shows at one of them.
        for step, _ in low.points + high.points:
            if low(step) > high(step):
                raise ConfigError(
                    f"system.guidance.min_step_percent is {low(step):g} at step {step}, above max_step_percent {high(step):g}."
                )
