"""Variational score distillation (ProlificDreamer, eq. 7): the baseline is a network trained on the current renders."""

import copy
import logging
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.diffusion.lora import add_lora, import_peft
from zero123s.errors import CheckpointError
from zero123s.guidance.sds import DiffusionModel, NoisedViews, NoisePredictor, Variant, variant
from zero123s.ops.sections import section
from zero123s.randomness import world_size
from zero123s.structures import Cameras

logger = logging.getLogger(__name__)


class LoRAScore:
    """VSD's second network: a copy of the denoiser whose LoRA adapters are trained to denoise the current renderings.

    It is conditioned as the denoiser is. The gradients of a step are accumulated over all its parts and batches, and
    applied when the next step begins.

    Args:
        model: whose denoiser is copied; it stays as it is.
        rank: of the adapters.
        lr: of AdamW.
    """

    def __init__(self, model: DiffusionModel, rank: int, lr: float) -> None:
        self.model = model
        self.rank, self.lr = rank, lr
        self.unet: Any = float32_copy(model.unet)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            add_lora(self.unet, rank, rank)
        self.adapters = {name: p for name, p in self.unet.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.adapters.values(), lr=lr)

    @torch.no_grad()
    def predict(
        self, noised: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], *condition: Tensor
    ) -> Float[Tensor, "B C h w"]:
        """Predict the noise with the adapted copy; `condition` is what the model's `predict_noise` takes after `t`."""
        return self.model.predict_noise(noised, t, *condition, unet=self.unet)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Int[Tensor, "B"], Tensor]:
        """Return timesteps and noise to train with, on the CPU, for latents of shape (B, C, h, w)."""
        t = torch.randint(0, self.model.n_timesteps, shape[:1], generator=generator)
        return t, torch.randn(shape, generator=generator)

    @torch.enable_grad()
    def accumulate(
        self,
        latents: Float[Tensor, "B C h w"],
        condition: tuple[Tensor, ...],
        t: Int[Tensor, "B"],
        noise: Float[Tensor, "B C h w"],
        share: float = 1.0,
    ) -> Float[Tensor, ""]:
        """Accumulate the gradient of the denoising loss on scaled latents; returns the loss.

        Args:
            condition: as for `predict`.
            t, noise: these latents' rows of what `draw` returned.
            share: these views as a share of the batch.
        """
        latents = latents.detach().float()
        t, noise = t.to(latents.device), noise.to(latents)
        noised = self.model.add_noise(latents, noise, t)
        with torch.autocast(latents.device.type, enabled=False):  # in half precision small gradients would be lost
            loss = F.mse_loss(self.model.predict_noise(noised, t, *condition, unet=self.unet), noise)
            (share * loss).backward()
        return loss.detach()

    def discard_gradients(self) -> None:
        """Discard the accumulated gradients."""
        self.optimizer.zero_grad()

    def apply_gradients(self) -> None:
        """Do one optimiser step with the accumulated gradients, averaged over processes, unless they are not finite."""
        gradients = [p.grad for p in self.adapters.values() if p.grad is not None]
        if not gradients:
            return
        if world_size() > 1:
            for grad in gradients:
                torch.distributed.all_reduce(grad)
                grad.div_(world_size())
        if bool(torch.stack([grad.sum() for grad in gradients]).sum().isfinite()):
            self.optimizer.step()
        else:
            logger.warning("warning: the gradient of VSD's adapters is not finite; their step was skipped.")
        self.discard_gradients()

    def state(self) -> dict[str, Any]:
        """Return adapters and optimiser, after all steps so far."""
        self.apply_gradients()
        return {
            "adapters": {name: p.detach().cpu().clone() for name, p in self.adapters.items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`, except the learning rate; raises CheckpointError for another rank."""
        kept = state["adapters"]
        if {name: p.shape for name, p in kept.items()} != {name: p.shape for name, p in self.adapters.items()}:
            raise CheckpointError(
                f"The checkpoint's VSD adapters do not fit system.guidance.lora_rank={self.rank} on this model; resume "
                "with the model and rank that the run began with."
            )
        self.discard_gradients()
        with torch.no_grad():
            for name, p in self.adapters.items():
                p.copy_(kept[name])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr


@variant("vsd")
class VSD(Variant):
    """Compares the prior's prediction with that of a network trained on the current renderings.

    Args:
        guidance: whose denoiser is the prior.
        cfg: rank and learning rate.
    """

    @classmethod
    def check(cls) -> None:
        """Raise MissingDependencyError without peft."""
        import_peft()

    def __init__(self, guidance: NoisePredictor, cfg: Any) -> None:
        super().__init__(guidance, cfg)
        self.score = LoRAScore(guidance.model, cfg.lora_rank, cfg.lora_lr)
        self._batch: tuple[int, Tensor] | None = None
        """Step and camera poses of the last batch."""

    def begin(self, step: int, cameras: Cameras) -> None:
        """Apply the gradients of earlier steps, or discard those of an attempt at this batch that ran out of memory.

        Accumulated batches of one step have other cameras; their gradients add up.
        """
        last_step, last_poses = self._batch or (None, None)
        if step != last_step:
            self.score.apply_gradients()
        elif last_poses is not None and torch.equal(cameras.c2w, last_poses):
            self.score.discard_gradients()
        self._batch = step, cameras.c2w

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return timesteps and noise for the training of the adapters."""
        return self.score.draw(shape, generator)

    def residual(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return eps_guided(x_t) - eps_LoRA(x_t), and accumulate the adapters' gradients on these views."""
        guided = self.guidance.guided_noise(views.noised, views.t, views.condition)
        condition = self.guidance.denoiser_condition(views.condition)
        with section("guidance: LoRA"):
            baseline = self.score.predict(views.noised, views.t, *condition).to(views.latents)
            self.score.accumulate(views.latents, condition, *views.extra, share=views.share)
        return guided.to(views.latents) - baseline

    def rendered_latents(self, views: NoisedViews) -> Float[Tensor, "B C h w"]:
        """Return the renderings as denoised by the adapters."""
        condition = self.guidance.denoiser_condition(views.condition)
        predicted = self.score.predict(views.noised, views.t, *condition).to(views.latents)
        a = self.guidance.model.alphas_cumprod[views.t].to(views.latents)[:, None, None, None]
        return (views.noised - (1 - a).sqrt() * predicted) / a.sqrt()

    def state(self) -> dict[str, Any]:
        """Return the adapters' state."""
        return self.score.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the adapters' state."""
        self.score.load_state(state)


def float32_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a frozen module in float32; weights that are float32 already are shared with the original.

    What a compiled module was compiled to is not copied.
    """
    shared = {id(p): p for p in module.parameters() if p.dtype == torch.float32}
    return copy.deepcopy(module, shared).float()
