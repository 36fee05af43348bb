"""Variational score distillation (ProlificDreamer, eq. 7): renderings are compared with what they look like by now.

SDS takes the noise that was added as its baseline; VSD takes the opinion of a second network, phi, that learns to denoise
the present renderings beside the field.
"""

import copy
import logging
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.diffusion.lora import add_lora, import_peft
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.text_model import TextModel
from zero123s.errors import CheckpointError
from zero123s.guidance.base import BaseGuidance
from zero123s.guidance.options import VariationalConfig
from zero123s.randomness import world_size
from zero123s.structures import Cameras

logger = logging.getLogger(__name__)


def check_adapters(cfg: VariationalConfig) -> None:
    """Raise MissingDependencyError where VSD is asked for and its adapters cannot be made."""
    if cfg.variant == "vsd":
        import_peft()


class Phi:
    """VSD's second network: a copy of a denoiser whose adapters learn to denoise the present renderings.

    It is told of a view what the denoiser is told: the prompt of its direction, or picture and pose. What a step teaches
    is gathered from all views at once or part by part, and taken up when the next step begins: a step that has to be done
    again meets the same phi.

    Args:
        model: whose denoiser is copied; it stays as it is.
        rank: of the adapters.
        lr: of AdamW.
    """

    def __init__(self, model: TextModel | Zero123Model, rank: int, lr: float) -> None:
        self.model = model
        self.rank, self.lr = rank, lr
        self.unet = float32_copy(model.unet)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            add_lora(self.unet, rank, rank)
        self.learned = {name: p for name, p in self.unet.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.learned.values(), lr=lr)
        self._batch: tuple[int, Tensor] | None = None
        """Step and poses of the batch that was begun last."""
        self._before: dict[str, Tensor] = {}
        """What earlier batches of its step had gathered by then."""

    def begin(self, step: int, cameras: Cameras) -> None:
        """Begin a batch: take up what earlier steps taught.

        The same cameras twice in a row in one step are one batch that memory ran out for: it is gathered anew. Those of
        accumulated batches differ, and what they gather adds up.
        """
        last_step, last_poses = self._batch or (None, None)
        if step != last_step:
            self._take_up()
        elif last_poses is not None and torch.equal(cameras.c2w, last_poses):
            for name, p in self.learned.items():
                p.grad = self._before.get(name)
        self._batch = step, cameras.c2w
        self._before = {name: p.grad.clone() for name, p in self.learned.items() if p.grad is not None}

    @torch.no_grad()
    def predict(
        self, noised: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], *condition: Tensor
    ) -> Float[Tensor, "B C h w"]:
        """Return the noise that phi sees; `condition` is what the model's `predict_noise` takes after `t`."""
        return self.model.predict_noise(noised, t, *condition, unet=self.unet)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Int[Tensor, "B"], Tensor]:
        """Return timesteps and noise to learn from, on the CPU, for all latents of a step: B C h w."""
        t = torch.randint(0, self.model.n_timesteps, shape[:1], generator=generator)
        return t, torch.randn(shape, generator=generator)

    @torch.enable_grad()
    def learn(
        self,
        latents: Float[Tensor, "B C h w"],
        condition: tuple[Tensor, ...],
        t: Int[Tensor, "B"],
        noise: Float[Tensor, "B C h w"],
        share: float = 1.0,
    ) -> Float[Tensor, ""]:
        """Gather the gradient of the usual denoising loss on scaled latents; returns the loss.

        Args:
            condition: as for `predict`.
            t, noise: these latents' part of what `draw` returned.
            share: of the step's views that these are.
        """
        latents = latents.detach().float()
        t, noise = t.to(latents.device), noise.to(latents)
        noised = self.model.add_noise(latents, noise, t)
        with torch.autocast(latents.device.type, enabled=False):  # in half precision small gradients would be lost
            loss = F.mse_loss(self.model.predict_noise(noised, t, *condition, unet=self.unet), noise)
            (share * loss).backward()
        return loss.detach()

    def _take_up(self) -> None:
        """Let the optimiser use what was gathered; of several processes all learn the mean and stay alike."""
        gathered = [p.grad for p in self.learned.values() if p.grad is not None]
        if not gathered:
            return
        if world_size() > 1:
            for grad in gathered:
                torch.distributed.all_reduce(grad)
                grad.div_(world_size())
        if bool(torch.stack([grad.sum() for grad in gathered]).sum().isfinite()):
            self.optimizer.step()
        else:
            step = self._batch[0] if self._batch else None
            logger.warning("warning: step %s: what VSD's phi would learn is not finite; it learned nothing.", step)
        self._forget()

    def _forget(self) -> None:
        self.optimizer.zero_grad()
        self._before = {}

    def state(self) -> dict[str, Any]:
        """Return adapters and optimiser, after all steps so far."""
        self._take_up()
        return {
            "adapters": {name: p.detach().cpu().clone() for name, p in self.learned.items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up `state()` of another moment, but for the learning rate; raises CheckpointError for another rank."""
        kept = state["adapters"]
        if {name: p.shape for name, p in kept.items()} != {name: p.shape for name, p in self.learned.items()}:
            raise CheckpointError(
                f"The checkpoint's VSD adapters do not fit system.guidance.lora_rank={self.rank} on this model; go on "
                "with the model and rank that the run began with."
            )
        self._forget()
        with torch.no_grad():
            for name, p in self.learned.items():
                p.copy_(kept[name])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr


def float32_copy(module: nn.Module) -> nn.Module:
    """Return a copy of a frozen module in float32; weights that are float32 already lie in memory once for both.

    What a compiled module was compiled to is not copied.
    """
    shared = {id(p): p for p in module.parameters() if p.dtype == torch.float32}
    return copy.deepcopy(module, shared).float()


class VariationalGuidance(BaseGuidance):
    """A guidance that has a phi where its `variant` is "vsd"."""

    phi: Phi | None = None

    def state(self) -> dict[str, Any]:
        """Return what phi has learned."""
        return {} if self.phi is None else self.phi.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what phi had learned; raises CheckpointError where it does not fit."""
        if self.phi is not None and state:
            self.phi.load_state(state)
