"""Trains Zero123, from scratch or from a checkpoint, on rendered views or their cached latents."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.config.options import option
from zero123s.config.schedule import Schedule
from zero123s.data.base import BaseData
from zero123s.diffusion import training
from zero123s.diffusion.checkpoint.load_zero123 import COMPONENTS, load_zero123, save_zero123
from zero123s.diffusion.checkpoint.lpips_files import load_lpips
from zero123s.diffusion.checkpoint.weights_file import open_weights
from zero123s.diffusion.lora import add_lora, merge_lora
from zero123s.diffusion.model import Zero123Model, build_model
from zero123s.diffusion.model_config import read_model_config
from zero123s.diffusion.validation import (
    embedding_similarity,
    image_scores,
    lift_scores,
    pose_sensitivity,
    sample_views,
)
from zero123s.errors import ConfigError
from zero123s.images.io import write_png_atomic
from zero123s.ops.lpips import BACKBONES, Lpips
from zero123s.ops.memory import mean_over_parts
from zero123s.randomness import generator_for, world_size
from zero123s.structures import PosedViews
from zero123s.system.base import SYSTEMS, BaseSystem
from zero123s.system.optimizers import OptimizerConfig, SchedulerConfig, build_optimizer_over, build_scheduler, may_fuse
from zero123s.system.optimizers import check_optimizer as check_optimizer_config

logger = logging.getLogger(__name__)

SMALLEST_SCORED = 11
"""Pixels."""


@SYSTEMS.register("zero123-finetune-system")
class Zero123FinetuneSystem(BaseSystem):
    """The original recipe: predict the noise in a target view given its pose; trains the pose lift as well."""

    @dataclass
    class Config(BaseSystem.Config):
        """Settings of `zero123-finetune-system`."""

        model: str = option("", path=True)
        """YAML of a model to train from scratch, with the original's keys."""
        checkpoint: str = option("", path=True)
        """Checkpoint to start from, anything `load_zero123` reads; instead of `model`."""
        model_config: str = option("", path=True)
        """YAML of the checkpoint's sizes; empty = read from the checkpoint."""
        autoencoder: str = option("", path=True)
        """File whose `first_stage_model.` weights are taken; needed from scratch."""
        components: list[str] = field(default_factory=lambda: ["unet", "cc_projection"])
        """Components to train, any of unet, image_encoder, cc_projection, lift; the autoencoder is never trained."""
        lora_rank: int = option(0, low=0, high=1024)
        """Rank of adapters on the denoiser, which is frozen; 0 = train the denoiser itself. Merged on export."""
        lora_alpha: int = 16
        """Scale of the adapters, over their rank."""
        gradient_checkpointing: bool = False
        """Compute the denoiser's activations again in the backward pass: less memory, a third more time."""
        lambda_denoise: Any = 1.0
        """Weight of the denoising loss, number or schedule; at zero the denoiser does not run."""
        lambda_lift: Any = 0.0
        """Weight of the lift's own loss on colours and opacity, number or schedule."""
        mirror_lift: bool = False
        """Add lifting of the mirrored image to a pose lift without it (`mirrored` of the model's YAML)."""
        lambda_mirror: Any = 0.0
        """Weight of the error of the mirrored image's latents as predicted by such a lift; number or schedule."""
        dropout: float = 0.05
        """Share of samples that lose only the embedding, as many both, as many only the image latents."""
        high_noise_share: float = 0.0
        """Share of the timesteps that are drawn from the noisier half; the others are uniform, as in the original."""
        projection_lr_factor: float = 10.0
        """Factor on the learning rate of the camera projection."""
        ema_decay: float = 0.9999
        """Decay of the moving average that is validated and exported."""
        n_validation: int = option(64, low=0)
        """Held-out pairs that are scored at every validation."""
        n_samples: int = option(16, low=0)
        """Of these, how many are drawn."""
        sample_steps: int = option(25, low=1, high=1000)
        """DDIM steps of the drawn views."""
        sample_scale: float = 3.0
        """Classifier-free guidance of the drawn views."""
        lpips: str = option("", path=True)
        """Folder with the weights of LPIPS (docs/meshes.md), which then scores drawn views too; empty = without."""
        optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("AdamW", {"lr": 1e-4}))
        """Optimiser; its lr is that of all but the projection."""
        scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
        """Learning rate scheduler."""

    cfg: Config
    memory_keys = ("data.batch_size", "data.n_targets")

    @classmethod
    def check(cls, cfg: Any) -> None:
        """Check schedules, components and optimiser; raises ConfigError."""
        for key in ("lambda_denoise", "lambda_lift", "lambda_mirror"):
            Schedule(getattr(cfg, key), f"system.{key}")
        check_optimizer_config(cfg.optimizer)
        if bool(cfg.model) == bool(cfg.checkpoint):
            raise ConfigError("system: give either `model` (a YAML, from scratch) or `checkpoint` (to start from).")
        trainable = [c for c in COMPONENTS if c != "vae"]
        for name in cfg.components:
            if name not in trainable:
                raise ConfigError(f"system.components: '{name}' is none of {', '.join(trainable)}.")

    def __init__(self, cfg: Config, data: BaseData, seed: int = 0) -> None:
        super().__init__(cfg, data, seed)
        self.model = self._build(cfg, seed)
        if cfg.mirror_lift:
            training.mirror_lift(self.model)
        self.model.requires_grad_(False)
        for name in cfg.components:
            module = getattr(self.model, name)
            if module is None:
                raise ConfigError(f"system.components: this model has no {name}.")
            module.requires_grad_(True)
        if cfg.lora_rank and "unet" in cfg.components:
            add_lora(self.model.unet, cfg.lora_rank, cfg.lora_alpha)
        if cfg.gradient_checkpointing:
            self.model.unet.enable_gradient_checkpointing()
        self.lambda_denoise = Schedule(cfg.lambda_denoise, "system.lambda_denoise")
        self.lambda_lift = Schedule(cfg.lambda_lift, "system.lambda_lift")
        self.lambda_mirror = Schedule(cfg.lambda_mirror, "system.lambda_mirror")
        if not self.lambda_mirror.is_zero and (self.model.lift is None or self.model.lift.mirror is None):
            raise ConfigError("system.lambda_mirror: this model lifts no mirrored images; add system.mirror_lift=true.")
        if self.model.lift is not None and self.lambda_denoise.is_zero:
            # Only the denoiser reads the maps; DDP waits for the gradient of everything that is said to learn.
            self.model.lift.to_maps.requires_grad_(False)
        self.average = training.WeightAverage(self.model, cfg.ema_decay)
        self.lpips: Lpips | None = None

    @staticmethod
    def _build(cfg: Config, seed: int) -> Zero123Model:
        if cfg.checkpoint:
            return load_zero123(cfg.checkpoint, config=cfg.model_config or None, dtype="fp32")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(read_model_config(cfg.model))
        if not cfg.autoencoder:
            raise ConfigError("system.autoencoder: a model from scratch needs a trained autoencoder; see CONTRIBUTING.")
        training.load_component(model, "vae", open_weights(cfg.autoencoder))
        return model

    def load_networks(self, device: torch.device) -> None:
        """Check the images' size, and that cached latents were computed by this model.

        Loads LPIPS too, so that a missing file is reported before the training instead of at its first validation.
        """
        image_size = self.model.image_size
        if image_size < SMALLEST_SCORED:
            raise ConfigError(
                f"the model's images have {image_size} pixels (unet_config's image_size {self.model.latent_size} times "
                f"{self.model.config.vae.factor}); validation cannot score fewer than {SMALLEST_SCORED}, SSIM's window."
            )
        if self.cfg.lpips:
            self.lpips = load_lpips(folder=Path(self.cfg.lpips)).to(device)
            if image_size < (least := BACKBONES[self.lpips.net].min_size):
                raise ConfigError(
                    f"system.lpips: needs images of {least} pixels, the model's have {image_size}; leave it empty."
                )
        views: PosedViews = self.data_source.batch_at(0)  # type: ignore[assignment]
        if (size := views.rgba.shape[2]) < image_size:
            logger.warning(
                "note: the images have %d pixels, and are enlarged to the %d of the model.", size, image_size
            )
        if views.latents is not None:
            embeds = "image_encoder" not in self.cfg.components and not self.lambda_denoise.is_zero
            training.check_cached(self.model, views, embeds)

    def training_step(self, batch: PosedViews, batch_idx: int) -> Tensor:
        """Return the loss of one batch; logs its terms."""
        terms = self.losses(batch, self.global_step, batch_idx % self.trainer.accumulate_grad_batches)
        loss = sum(terms.values())
        assert isinstance(loss, Tensor)
        values = {name: value.detach() for name, value in terms.items()}
        self.diagnostics = replace(self.diagnostics, losses=values)
        self.log_dict(
            {f"train/{name}": value for name, value in values.items()},
            prog_bar=True,
            sync_dist=world_size() > 1,
        )
        return loss

    def losses(self, views: PosedViews, step: int, micro_step: int = 0) -> dict[str, Tensor]:
        """Return the weighted terms of step `step`: denoise, lift, mirror."""
        schedules = {"lift": self.lambda_lift, "denoise": self.lambda_denoise, "mirror": self.lambda_mirror}
        weights = {name: schedule(step) for name, schedule in schedules.items()}
        k = views.rgba.shape[1] - 1
        latents = self._latents(views, n_views=k + 1 if weights["denoise"] else 1)
        views = replace(views, latents=latents)
        drawn = self._draw(latents[:, 1:].flatten(0, 1), step, micro_step) if weights["denoise"] else None

        def terms(objects: slice) -> dict[str, Tensor]:
            targets = slice(objects.start * k, objects.stop * k)
            noising = None if drawn is None else training.Noising(*(values[targets] for values in drawn))
            return self._losses(views.select(objects), noising, weights)

        learned = [p for p in self.parameters() if p.requires_grad]
        return mean_over_parts(terms, len(views.rgba), self.n_parts, learned)

    def _draw(self, latents: Float[Tensor, "B C h w"], step: int, micro_step: int) -> training.Noising:
        """Draw the noise of all target latents of a batch, independent of the parts it is computed in."""
        generator = generator_for(self.seed, step, "denoising", 0, micro_step)
        world = (self.global_rank, world_size())
        return training.draw_noising(self.model, latents, self.cfg.dropout, self.cfg.high_noise_share, generator, world)

    def _losses(
        self, views: PosedViews, drawn: training.Noising | None, weights: dict[str, float]
    ) -> dict[str, Tensor]:
        """Return the weighted terms of some objects' views."""
        k = views.elevation_deg.shape[1] - 1
        rgb = views.on_white()
        latents = views.latents
        assert latents is not None
        poses = training.pairwise_poses(self.model, views)
        terms: dict[str, Tensor] = {}
        concat = latents[:, :1].expand(-1, k, -1, -1, -1).flatten(0, 1)
        if self.model.lift is not None and weights["mirror"]:
            terms["mirror"] = weights["mirror"] * self._mirror_loss(rgb[:, 0], latents[:, 0])
        if self.model.lift is not None and (weights["lift"] or drawn is not None):
            volume = self.model.lift.volume(latents[:, 0], poses[:, 0, 3])
            lifted = self.model.lift.render(volume, poses)
            if weights["lift"]:
                alpha = views.rgba[:, 1:, ..., 3].flatten(0, 1)[:, None]
                target = rgb[:, 1:].flatten(0, 1)
                terms["lift"] = weights["lift"] * training.lift_loss(
                    lifted.features[:, :3], lifted.opacity, target, alpha
                )
            if drawn is not None:
                concat = torch.cat([concat, self.model.lift.maps(lifted)], dim=1)
        if drawn is not None:
            embedding = self._embedding(views)
            embedding = embedding[:, None].expand(-1, k, -1, -1).flatten(0, 1)
            targets = self.model.scale_factor * latents[:, 1:].flatten(0, 1)
            terms["denoise"] = weights["denoise"] * self._denoising_loss(
                targets, embedding, poses.flatten(0, 1), concat, drawn
            )
        return terms

    def _mirror_loss(self, rgb: Float[Tensor, "B 3 H W"], latents: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
        """Return the mean squared error of the latents that the lift predicts for the mirrored images."""
        assert self.model.lift is not None
        assert self.model.lift.mirror is not None
        with torch.no_grad():
            target = self.model.encode_image(rgb.flip(-1))
        return (self.model.lift.mirror(latents) - target).square().mean()

    def _denoising_loss(
        self,
        latents: Float[Tensor, "B C h w"],
        embedding: Float[Tensor, "B N D"],
        pose: Float[Tensor, "B 4"],
        concat: Float[Tensor, "B K h w"],
        drawn: training.Noising,
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the network's own output (eps or v)."""
        # In training the dropped embedding is zero before the projection: the pose stays, as in the original.
        embedding = embedding * (~drawn.no_embedding).to(embedding).view(-1, 1, 1)
        concat = concat * (~drawn.no_concat).to(concat).view(-1, 1, 1, 1)
        noise, t = drawn.noise, drawn.t
        noised = self.model.add_noise(latents, noise, t)
        output = self.model.denoise(noised, t, self.model.project(embedding, pose), concat)
        return (output - training.denoising_target(self.model, latents, noise, t)).square().mean()

    def _embedding(self, views: PosedViews) -> Float[Tensor, "B N D"]:
        """Return the embedding of view 0: cached, unless the image encoder is trained."""
        if views.embedding is not None and "image_encoder" not in self.cfg.components:
            return views.embedding
        return self.model.embed_image(views.on_white()[:, 0])

    @torch.no_grad()
    def _latents(self, views: PosedViews, n_views: int) -> Float[Tensor, "B V C h w"]:
        """Return the unscaled latents of the first `n_views` views: cached, else encoded."""
        if views.latents is not None:
            return views.latents
        parts = views.on_white()[:, :n_views].split(-(-len(views.rgba) // self.n_parts))
        return torch.cat([self.model.encode_image(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in parts])

    def on_before_zero_grad(self, optimizer: Any) -> None:
        """Update the average after every optimiser step."""
        if self.average.n_updates < self.global_step:
            self.average.update(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the average of the weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["weight_average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the average of the weights."""
        super().on_load_checkpoint(checkpoint)
        self.average.load_state_dict(checkpoint["weight_average"])

    def configure_optimizers(self) -> Any:
        """Build the optimiser with one group per component, the projection's rate higher."""
        cfg = self.cfg
        lr = float(cfg.optimizer.args.get("lr", 1e-4))
        groups = training.parameter_groups(self.model, cfg.components, lr, cfg.projection_lr_factor)
        optimizer = build_optimizer_over(cfg.optimizer, groups, fused=may_fuse(self.trainer))
        if not cfg.scheduler.name:
            return optimizer
        scheduler = build_scheduler(cfg.scheduler, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def preview(self, out_dir: Path, step: int) -> dict[str, float]:
        """Score the averaged model on held-out pairs: pose sensitivity, lift, sampled views against input copies."""
        model = self.average.averaged(self.model)
        assert isinstance(model, Zero123Model)
        views = self._held_out(self.cfg.n_validation)
        scores = lift_scores(model, views)
        if not self.lambda_denoise(step):
            return scores
        scores |= pose_sensitivity(model, views)
        few = self._held_out(self.cfg.n_samples)
        drawn = sample_views(model, few, self.cfg.sample_steps, self.cfg.sample_scale)
        given, truth = few.on_white()[:, 0], few.on_white()[:, 1]
        rows = torch.cat([given, drawn, truth], dim=2).permute(2, 0, 3, 1).flatten(1, 2)
        write_png_atomic(out_dir / "save" / f"it{step}-val.png", rows.cpu().numpy())
        scores |= image_scores(drawn, few, self.lpips) | {
            "embedding_similarity": embedding_similarity(model, drawn, few)
        }
        copied = image_scores(given, few, self.lpips) | {
            "embedding_similarity": embedding_similarity(model, given, few)
        }
        return scores | {f"copy_{name}": value for name, value in copied.items()}

    def _held_out(self, n: int) -> PosedViews:
        views = self.data_source.validation_batch(0, n)  # type: ignore[attr-defined]
        return training.fit_views(views.to(self.device), self.model.image_size)

    def export(self, out_dir: Path, progress: Any = None) -> dict[str, Path]:
        """Write the averaged model, adapters merged, as fp16 safetensors with the original's key names."""
        model = self.average.averaged(self.model)
        assert isinstance(model, Zero123Model)
        merge_lora(model.unet)
        path = out_dir / "zero123.safetensors"
        save_zero123(model, path, torch.float16, {"name": str(model.info.get("name", "own"))})
        return {"checkpoint": path}
