"""Trains the autoencoder of a Zero123 model from rendered views."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.config.options import option
from zero123s.config.schedule import Schedule
from zero123s.data.base import BaseData
from zero123s.diffusion.components import build_vae
from zero123s.diffusion.model_config import read_model_config
from zero123s.errors import ConfigError
from zero123s.images.io import write_png_atomic
from zero123s.ops.memory import mean_over_parts
from zero123s.randomness import generator_for
from zero123s.structures import PosedViews
from zero123s.system.base import SYSTEMS, BaseSystem
from zero123s.system.optimizers import (
    OptimizerConfig,
    SchedulerConfig,
    build_optimizer,
    build_scheduler,
    check_optimizer,
    may_fuse,
)


@SYSTEMS.register("autoencoder-system")
class AutoencoderSystem(BaseSystem):
    """Trains on reconstruction, a small KL term, and an anchor of three latent channels to the downsampled colours.

    Without the anchor a small autoencoder spends its first hours on luminance and loses all colour.
    """

    @dataclass
    class Config(BaseSystem.Config):
        """Settings of `autoencoder-system`."""

        model: str = option("???", path=True)
        """YAML of the Zero123 model, with the original's keys; its first_stage_config is trained."""
        crop_size: int = 32
        """Edge in pixels of random crops for the first steps, which makes them cheaper."""
        crop_until: int = 0
        """Step from which whole images are used."""
        kl_weight: float = 1e-6
        """Weight of the Kullback-Leibler term per latent value."""
        anchor_weight: Any = 0.0
        """Weight of the squared difference between the first three channels and the shrunken colours."""
        background_weight: float = 0.2
        """Weight of pixels outside the object, relative to those inside."""
        optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
        """Optimiser."""
        scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
        """Learning rate scheduler."""

    cfg: Config
    memory_keys = ("data.batch_size", "system.crop_size")

    @classmethod
    def check(cls, cfg: Any) -> None:
        """Check schedules, optimiser and the model's YAML; raises ConfigError."""
        Schedule(cfg.anchor_weight, "system.anchor_weight")
        check_optimizer(cfg.optimizer)
        factor = read_model_config(cfg.model).vae.factor
        if cfg.crop_until and (cfg.crop_size < factor or cfg.crop_size % factor):
            raise ConfigError(f"system.crop_size: {cfg.crop_size} pixels; {cfg.model} needs a multiple of {factor}.")

    def __init__(self, cfg: Config, data: BaseData, seed: int = 0) -> None:
        super().__init__(cfg, data, seed)
        config = read_model_config(cfg.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.vae: AutoencoderKL = build_vae(config.vae, config.scale_factor)
        self.factor, self.latent_channels = config.vae.factor, config.vae.z_channels
        self.anchor_weight = Schedule(cfg.anchor_weight, "system.anchor_weight")

    def load_networks(self, device: torch.device) -> None:
        """Check that the images fit the autoencoder; raises ConfigError."""
        height, width = self.data_source.batch_at(0).rgba.shape[2:4]  # type: ignore[attr-defined]
        if height % self.factor or width % self.factor:
            raise ConfigError(
                f"the images have {width}x{height} pixels, and the autoencoder of {self.cfg.model} needs multiples of "
                f"{self.factor}; render them anew, zero123s render --size {self.factor * max(1, round(width / self.factor))}."
            )
        if self.cfg.crop_until and self.cfg.crop_size > min(height, width):
            raise ConfigError(f"system.crop_size: {self.cfg.crop_size}, but the images have {width}x{height} pixels.")

    def training_step(self, batch: PosedViews, batch_idx: int) -> Tensor:
        """Return the loss of one batch; logs its terms."""
        step = self.global_step
        rgb, alpha = batch.on_white().flatten(0, 1), batch.rgba[..., 3].flatten(0, 1)[:, None]
        if step < self.cfg.crop_until:
            generator = generator_for(self.seed, step, "crops")
            rgb, alpha = random_crops(rgb, alpha, self.cfg.crop_size, self.factor, generator)
        terms = self.losses(rgb, alpha, step)
        loss = sum(terms.values())
        assert isinstance(loss, Tensor)
        self.log_dict({f"train/{name}": value for name, value in terms.items()} | {"train/loss": loss})
        return loss

    def losses(self, rgb: Float[Tensor, "B 3 H W"], alpha: Float[Tensor, "B 1 H W"], step: int) -> dict[str, Tensor]:
        """Return the weighted terms: rgb, kl, anchor."""
        n = len(rgb)
        near = F.max_pool2d(alpha, 5, stride=1, padding=2)  # the outline counts as the object
        weight = self.cfg.background_weight + (1 - self.cfg.background_weight) * near
        weight = weight / weight.mean()
        height, width = rgb.shape[-2] // self.factor, rgb.shape[-1] // self.factor
        shape = (n, self.latent_channels, height, width)
        noise = torch.randn(shape, generator=generator_for(self.seed, step, "posterior")).to(rgb)

        def terms(images: slice) -> dict[str, Tensor]:
            return self._losses(rgb[images], weight[images], noise[images], step)

        return mean_over_parts(terms, n, self.n_parts, [p for p in self.parameters() if p.requires_grad])

    def _losses(
        self,
        rgb: Float[Tensor, "B 3 H W"],
        weight: Float[Tensor, "B 1 H W"],
        noise: Float[Tensor, "B C h w"],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the weighted terms for some of the images; the pixel weights have a mean of 1 over the whole batch."""
        posterior = self.vae.encode(rgb * 2 - 1).latent_dist
        decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        difference = decoded - (rgb * 2 - 1)
        terms = {"rgb": (weight * (difference.abs() + 2 * difference.square())).mean()}
        terms["kl"] = self.cfg.kl_weight * posterior.kl().mean() / posterior.mean[0].numel()
        anchor = float(self.anchor_weight(step))
        if anchor:
            small = F.avg_pool2d(rgb * 2 - 1, self.factor)
            terms["anchor"] = anchor * F.mse_loss(posterior.mean[:, :3], small)
        return terms

    def configure_optimizers(self) -> Any:
        """Build optimiser and scheduler from the config."""
        optimizer = build_optimizer(self.cfg.optimizer, self, fused=may_fuse(self.trainer))
        if not self.cfg.scheduler.name:
            return optimizer
        scheduler = build_scheduler(self.cfg.scheduler, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def preview(self, out_dir: Path, step: int) -> dict[str, float]:
        """Reconstruct held-out views: an image of pairs, and PSNR over the image and over the object alone."""
        batch = self.data_source.validation_batch(0, 32).to(self.device)  # type: ignore[attr-defined]
        rgb, alpha = batch.on_white()[:, 0], batch.rgba[:, 0, ..., 3]
        decoded = self.vae.decode(self.vae.encode(rgb * 2 - 1).latent_dist.mean).sample.div(2).add(0.5).clamp(0, 1)
        rows = torch.cat([rgb[:16], decoded[:16]], dim=2).permute(2, 0, 3, 1).flatten(1, 2)
        write_png_atomic(out_dir / "save" / f"it{step}-val.png", rows.cpu().numpy())
        error = (decoded - rgb).square().mean(1)
        inside = error[alpha > 0].mean()
        return {"psnr": float(-10 * error.mean().log10()), "psnr_object": float(-10 * inside.log10())}


def random_crops(
    rgb: Float[Tensor, "B 3 H W"], alpha: Float[Tensor, "B 1 H W"], size: int, stride: int, generator: torch.Generator
) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 1 S S"]]:
    """Return one square crop of each image, placed on multiples of `stride`."""
    room = (rgb.shape[-1] - size) // stride + 1
    corners = (stride * torch.randint(room, (len(rgb), 2), generator=generator)).tolist()
    both = torch.cat([rgb, alpha], dim=1)
    crops = torch.stack([x[:, i : i + size, j : j + size] for x, (i, j) in zip(both, corners, strict=True)])
    return crops[:, :3], crops[:, 3:]
