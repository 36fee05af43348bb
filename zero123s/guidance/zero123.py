"""Score distillation from Zero123 and Stable Zero123: a picture and a pose judge the rendered views."""

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from zero123s.config.options import option
from zero123s.config.schedule import Schedule
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.checkpoint.locate import locate_checkpoint
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.shared import shared
from zero123s.diffusion.speed import speed_up
from zero123s.errors import ConfigError
from zero123s.guidance.base import GUIDANCES, BaseGuidance
from zero123s.guidance.options import VariationalConfig, annealed_timesteps, distillation_gradient
from zero123s.guidance.sds import loss_with_gradient, sample_timesteps, sds_loss
from zero123s.guidance.variational import Phi, VariationalGuidance, check_adapters
from zero123s.ops.sections import section
from zero123s.structures import Cameras, GuidanceOutput, ReferenceView

logger = logging.getLogger(__name__)

_LOADING = ("config", "ema", "dtype", "fast", "channels_last", "compile")
"""Settings that decide what the loaded networks are."""


def composite_on_white(reference: ReferenceView) -> Float[Tensor, "V 3 H W"]:
    """Return the reference views over white, channels first."""
    return (reference.rgb * reference.mask + (1 - reference.mask)).permute(0, 3, 1, 2)


@GUIDANCES.register("stable-zero123-guidance")
class StableZero123Guidance(VariationalGuidance):
    """SDS, or VSD, with a Zero123 network conditioned on the input view.

    Conditioning, weights and sampling follow threestudio's stable-zero123 guidance; see docs/conventions.md.
    """

    family = "auto"
    sees_squares = True

    @dataclass
    class Config(BaseGuidance.Config, VariationalConfig):
        """Settings of `stable-zero123-guidance` and `zero123-guidance`."""

        checkpoint: str = "auto"
        """"auto" (load/zero123/stable_zero123.ckpt, else the bundled small model), a file, or a diffusers folder."""
        config: str | None = None
        """YAML of the network's sizes in the original's words; None = read from the checkpoint."""
        family: str = option("auto", choices=("auto", "stable-zero123", "zero123"))
        """Which meaning the fourth pose term has; "auto" = by the checkpoint's name."""
        ema: bool = True
        """Use the EMA weights where the file has both."""
        dtype: str = "auto"
        """"fp32", "bf16", "fp16", or "auto" = what suits the device."""
        guidance_scale: float = option(5.0, low=0.0)
        """Classifier-free guidance scale."""
        micro_batch: int = option(0, low=0)
        """Views that the networks see at once, to save memory; same gradients; 0 = the whole batch."""
        max_conditions: int = option(8, low=1)
        """Of many reference views at most this many condition the model, evenly chosen; a view takes the nearest."""
        fast: bool = True
        """Take faster ways to the same result: large convolutions on a CPU differ in the fifth decimal."""
        channels_last: bool = False
        """Lay images out with the channels last: faster on CUDA, not on CPUs."""
        compile: bool = False
        """Compile denoiser and encoder with torch.compile: minutes at the first step, needs a C++ compiler."""

        def __post_init__(self) -> None:
            low = Schedule(self.min_step_percent, "system.guidance.min_step_percent")
            high = Schedule(self.max_step_percent, "system.guidance.max_step_percent")
            # Both are straight between their points, so a crossing shows at one of them.
            for step, _ in low.points + high.points:
                if low(step) > high(step):
                    raise ConfigError(
                        f"system.guidance.min_step_percent is {low(step):g} at step {step}, above max_step_percent {high(step):g}."
                    )

    cfg: Config
    model: Zero123Model

    @classmethod
    def requirements(cls, cfg: Config) -> dict[str, str | bool | None]:
        """Return which checkpoint would be loaded; raises CheckpointError, MissingDependencyError for what is missing."""
        check_adapters(cfg)
        located = locate_checkpoint(cfg.checkpoint)
        return {"path": str(located.path), "bundled": located.bundled}

    def __init__(self, cfg: Config, reference: ReferenceView | None, device: torch.device | str = "cpu") -> None:
        super().__init__(cfg, reference, device)
        if reference is None:
            raise ConfigError(
                "Zero123 judges views of a picture, and this system has none; use stable-diffusion-guidance."
            )
        self.min_percent = Schedule(cfg.min_step_percent, "system.guidance.min_step_percent")
        self.max_percent = Schedule(cfg.max_step_percent, "system.guidance.max_step_percent")
        self.grad_clip = None if cfg.grad_clip is None else Schedule(cfg.grad_clip, "system.guidance.grad_clip")
        self.micro_batch = cfg.micro_batch
        self._batch = 0
        self.located = locate_checkpoint(cfg.checkpoint)
        # Nothing below changes the networks, so runs of one process may share them.
        key = ("zero123", str(self.located.path), self._family(), *(getattr(cfg, name) for name in _LOADING))
        self.model = shared((*key, str(self.device)), self._load_fast)
        self.image_size = self.model.image_size
        if cfg.variant == "vsd":
            self.phi = Phi(self.model, cfg.lora_rank, cfg.lora_lr)
        self._condition_on(reference)

    def _family(self) -> str:
        return self.cfg.family if self.cfg.family != "auto" else self.family

    def _load_fast(self) -> Zero123Model:
        cfg = self.cfg
        model = self._load(decoder=False)
        if cfg.fast or cfg.channels_last or cfg.compile:
            speed_up(model, cfg.fast, cfg.channels_last, cfg.compile)
        return model

    def _load(self, decoder: bool) -> Zero123Model:
        cfg = self.cfg
        return load_zero123(
            self.located.path, cfg.config, self._family(), cfg.ema, cfg.dtype, device=self.device, decoder=decoder
        )

    @torch.no_grad()
    def _condition_on(self, reference: ReferenceView) -> None:
        """Embed and encode the reference views, of many at most `max_conditions`, evenly chosen."""
        n = len(reference.cameras)
        chosen = torch.linspace(0, n - 1, min(n, self.cfg.max_conditions)).round().long()
        if n > len(chosen):
            reference = ReferenceView(reference.cameras.select(chosen), reference.rgb[chosen], reference.mask[chosen])
        reference = reference.to(self.device)
        size, (height, width) = self.model.image_size, reference.rgb.shape[1:3]
        if height != width:
            raise ConfigError(
                f"data.height, data.width: pictures of {width}x{height} pixels would be squeezed to the square that "
                "Zero123 sees; give it square pictures, or set system.loss.lambda_sds=0."
            )
        if height < size:
            logger.warning(
                "note: the model sees %d pixels, and its input picture has %d; a larger data.height may help.",
                size,
                height,
            )
        image = F.interpolate(composite_on_white(reference), (size, size), mode="area")
        self.cond_cameras = reference.cameras
        self.cond_embedding = self.model.embed_image(image)
        self.cond_latents = self.model.encode_image(image)
        own_pose = self._pose(reference.cameras, torch.arange(len(reference.cameras)))
        self.cond_volume = self.model.lift_volume(self.cond_latents, own_pose)

    def nearest(self, cameras: Cameras) -> Int[Tensor, "B"]:
        """Return the reference view from whose direction each camera looks most nearly."""
        directions = [F.normalize(c.positions.to(self.device), dim=-1) for c in (cameras, self.cond_cameras)]
        return (directions[0] @ directions[1].T).argmax(dim=1)

    def _pose(self, cameras: Cameras, source: Int[Tensor, "B"]) -> Float[Tensor, "B 4"]:
        """Return the pose of each camera relative to the reference view numbered `source`."""
        own = self.cond_cameras
        cond = (own.elevation_deg[source], own.azimuth_deg[source], own.distance[source])
        return self.model.pose_vector(cameras.elevation_deg, cameras.azimuth_deg, cameras.distance, *cond)

    def condition(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Return (context B N C, concat B c h w) of the target views, each seen from its nearest reference view."""
        source = self.nearest(cameras)
        pose = self._pose(cameras, source)
        if len(self.cond_cameras) == 1:  # one picture is lifted once for all views
            embedding, latents, volume = self.cond_embedding, self.cond_latents, self.cond_volume
        else:
            embedding, latents = self.cond_embedding[source], self.cond_latents[source]
            volume = None if self.cond_volume is None else self.cond_volume[source]
        context = self.model.project(embedding, pose)
        return context, self.model.concat_for(latents, pose, volume)

    def encode(
        self, comp_rgb: Float[Tensor, "B H W 3"], posterior_noise: Float[Tensor, "B 4 h w"]
    ) -> Float[Tensor, "B 4 h w"]:
        """Return scaled latents of rendered views, sampled from the posterior; differentiable."""
        rgb = comp_rgb.permute(0, 3, 1, 2)  # brought to the model's size there
        return self.model.scale_factor * self.model.encode_image(rgb, noise=posterior_noise.to(rgb))

    def draw(self, batch: int, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the step's random numbers for the whole batch: posterior noise, timesteps, latent noise."""
        shape = (batch, self.model.latent_channels, self.model.latent_size, self.model.latent_size)
        posterior_noise = torch.randn(shape, generator=generator).to(self.device)
        t = self.timesteps(batch, step, generator)
        return posterior_noise, t, torch.randn(shape, generator=generator).to(self.device)

    def timesteps(self, batch: int, step: int, generator: torch.Generator) -> Int[Tensor, "B"]:
        """Draw the noise levels of global step `step`."""
        low, high, n = self.min_percent(step), self.max_percent(step), self.model.n_timesteps
        if self.cfg.timesteps == "uniform":
            t = sample_timesteps(batch, low, high, n, generator)
        else:
            t = annealed_timesteps(batch, low, high, n, step, self.cfg)
        return t.to(self.device)

    def __call__(
        self, comp_rgb: Float[Tensor, "B H W 3"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> GuidanceOutput:
        """Return the loss of rendered views; its gradient reaches `comp_rgb` through the VAE encoder."""
        batch = self._batch = len(cameras)
        draws: tuple[Tensor, ...] = self.draw(batch, step, generator)
        if self.phi is not None:
            self.phi.begin(step, cameras)
            draws += self.phi.draw(draws[0].shape, generator)
        size = self.micro_batch or batch
        if size >= batch:
            latents, grad = self._judge(comp_rgb, cameras, draws, step)
            return GuidanceOutput(loss=sds_loss(latents, grad), grad_norm=grad.norm(), timesteps=draws[1])
        # Each part goes through the encoder and back before the next one: the memory of one part.
        image_grads, norms = [], []
        for start in range(0, batch, size):
            part = slice(start, start + size)
            rgb = comp_rgb[part].detach().requires_grad_()
            with torch.enable_grad():
                latents, grad = self._judge(rgb, cameras.select(part), tuple(x[part] for x in draws), step)
            image_grads.append(torch.autograd.grad(latents, rgb, grad / batch)[0])
            norms.append(grad.norm())
        norm = torch.stack(norms).norm()
        loss = loss_with_gradient(comp_rgb, torch.cat(image_grads), 0.5 * norm.square() / batch)
        return GuidanceOutput(loss=loss, grad_norm=norm, timesteps=draws[1])

    def _judge(
        self, comp_rgb: Float[Tensor, "B H W 3"], cameras: Cameras, draws: tuple[Tensor, ...], step: int
    ) -> tuple[Tensor, Tensor]:
        """Return the views' latents and the gradient with respect to them, both B 4 h w; phi learns from them, if any."""
        posterior_noise, t, noise, *for_phi = draws
        with section("guidance: encode"):
            latents = self.encode(comp_rgb, posterior_noise)
        noise = noise.to(latents)
        with torch.no_grad(), section("guidance: network"):
            noised = self.model.add_noise(latents, noise, t)
            context, concat = self.condition(cameras)
            noise_pred = self.model.guided_noise(noised, t, context, concat, self.cfg.guidance_scale)
        baseline = noise
        if self.phi is not None:
            with section("guidance: phi"):
                baseline = self.phi.predict(noised, t, context, concat).to(latents)
                self.phi.learn(latents, (context, concat), *for_phi, share=len(latents) / self._batch)
        clip = None if self.grad_clip is None else self.grad_clip(step)
        alphas = self.model.alphas_cumprod[t].to(latents)
        return latents, distillation_gradient(noise_pred.to(latents), baseline, alphas, self.cfg, clip)

    @torch.no_grad()
    def evaluate(
        self, comp_rgb: Float[Tensor, "B H W 3"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "B h w 3"]]:
        """Return the rendered, noised and one-step denoised views as the network sees them."""
        if self.model.vae.decoder is None:  # distillation alone does not need it
            # The decoder alone: the encoder that runs compute with stays the very same one.
            whole = self._load(decoder=True).vae
            self.model.vae.decoder, self.model.vae.post_quant_conv = whole.decoder, whole.post_quant_conv
        posterior_noise, t, noise = self.draw(len(cameras), step, generator)
        latents = self.encode(comp_rgb, posterior_noise)
        noised = self.model.add_noise(latents, noise, t)
        context, concat = self.condition(cameras)
        noise_pred = self.model.guided_noise(noised, t, context, concat, self.cfg.guidance_scale)
        alpha = self.model.alphas_cumprod[t].to(latents)[:, None, None, None]
        denoised = (noised - (1 - alpha).sqrt() * noise_pred) / alpha.sqrt()
        pictures = {"rendered": latents, "noised": noised, "denoised": denoised}
        decode = lambda z: self.model.decode_latents(z / self.model.scale_factor).permute(0, 2, 3, 1).float()  # noqa: E731
        return {name: decode(z).clamp(0, 1) for name, z in pictures.items()}

    def back_off(self) -> str | None:
        """Judge half as many views at once; see `BaseGuidance`."""
        at_once = min(self.micro_batch or self._batch, self._batch)
        if at_once <= 1:
            return None
        self.micro_batch = (at_once + 1) // 2
        return f"views through the guidance at once: {self.micro_batch}"

    def describe(self) -> dict[str, str | bool | None]:
        """Return path, hash, family and whether the model is the bundled one."""
        return {
            "path": str(self.located.path),
            "sha256": self.model.info.get("sha256"),
            "family": self.model.family,
            "license": self.model.info.get("license"),
            "weights": self.model.info.get("weights"),
            "dtype": self.model.info.get("dtype"),
            "bundled": self.located.bundled,
        }


@GUIDANCES.register("zero123-guidance")
class Zero123Guidance(StableZero123Guidance):
    """SDS, or VSD, with the original Zero123 or Zero123-XL, whose fourth pose term is the change of distance."""

    family = "zero123"
