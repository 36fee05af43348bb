"""Score distillation from a text-to-image model: a prompt judges the rendered views."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.config.options import option
from zero123s.config.schedule import Schedule
from zero123s.diffusion.conditioning import fit_image
from zero123s.diffusion.shared import shared
from zero123s.diffusion.text_model import TextModel, check_text_model, load_text_model
from zero123s.errors import ConfigError
from zero123s.guidance.base import GUIDANCES, BaseGuidance
from zero123s.guidance.options import VariationalConfig, annealed_timesteps, distillation_gradient
from zero123s.guidance.sds import sample_timesteps, sds_loss
from zero123s.guidance.variational import Phi, VariationalGuidance, check_adapters
from zero123s.structures import Cameras, GuidanceOutput, ReferenceView

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
VIEWS = ("front", "side", "back", "overhead")


@GUIDANCES.register("stable-diffusion-guidance")
class StableDiffusionGuidance(VariationalGuidance):
    """SDS, or VSD, with a prompt and a Stable Diffusion of diffusers."""

    sees_squares = True

    @dataclass
    class Config(BaseGuidance.Config, VariationalConfig):
        """Settings of `stable-diffusion-guidance`."""

        prompt: str = ""
        """What the object is."""
        negative_prompt: str = ""
        """What it is not."""
        checkpoint: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
        """Folder of the diffusers layout, or hub id."""
        guidance_scale: float = option(100.0, low=0.0)
        """Classifier-free guidance scale; 7.5 with VSD."""
        view_dependent_prompting: bool = True
        """Say from where the object is seen."""
        front_threshold: float = option(45.0, low=0.0, high=180.0)
        """Degrees of azimuth from the front that count as front."""
        back_threshold: float = option(45.0, low=0.0, high=180.0)
        """Degrees of azimuth from behind that count as back."""
        overhead_threshold: float = option(60.0, low=0.0, high=90.0)
        """Degrees of elevation above which a view counts as overhead."""
        dtype: str = option("auto", choices=("auto", "fp32", "fp16", "bf16"))
        """Precision of the networks; "auto" = fp16 on CUDA, else fp32."""

    cfg: Config

    @classmethod
    def requirements(cls, cfg: Config) -> dict[str, str | bool | None]:
        """Check prompt, path and packages; raises ConfigError, CheckpointError, MissingDependencyError."""
        if not cfg.prompt.strip():
            raise ConfigError(
                "The prompt of stable-diffusion-guidance is empty; describe one object, such as 'a corgi'."
            )
        check_text_model(cfg.checkpoint)
        check_adapters(cfg)
        return {"path": cfg.checkpoint, "family": "stable-diffusion", "bundled": False}

    def __init__(self, cfg: Config, reference: ReferenceView | None, device: torch.device | str = "cpu") -> None:
        super().__init__(cfg, reference, device)
        self.min_percent = Schedule(cfg.min_step_percent, "system.guidance.min_step_percent")
        self.max_percent = Schedule(cfg.max_step_percent, "system.guidance.max_step_percent")
        self.grad_clip = None if cfg.grad_clip is None else Schedule(cfg.grad_clip, "system.guidance.grad_clip")
        on_gpu = self.device.type == "cuda"
        dtype = DTYPES[cfg.dtype if cfg.dtype != "auto" else "fp16" if on_gpu else "fp32"]
        name = cfg.checkpoint
        self.model: TextModel = shared(
            ("text", name, dtype, str(self.device)), lambda: load_text_model(name, dtype, self.device)
        )
        self.image_size = self.model.image_size
        ending = [f", {view} view" for view in VIEWS] if cfg.view_dependent_prompting else [""] * len(VIEWS)
        self.positive = self.model.embed([cfg.prompt + end for end in ending])
        self.negative = self.model.embed([cfg.negative_prompt])
        self.phi = Phi(self.model, cfg.lora_rank, cfg.lora_lr) if cfg.variant == "vsd" else None

    def view_of(self, cameras: Cameras) -> Tensor:
        """Return the index into VIEWS of every camera; azimuth 0 is the front."""
        azimuth = (cameras.azimuth_deg + 180) % 360 - 180
        view = torch.ones_like(azimuth, dtype=torch.long)
        view[azimuth.abs() <= self.cfg.front_threshold] = 0
        view[azimuth.abs() >= 180 - self.cfg.back_threshold] = 2
        view[cameras.elevation_deg > self.cfg.overhead_threshold] = 3
        return view

    def encode(self, comp_rgb: Float[Tensor, "B H W 3"], noise: Tensor) -> Float[Tensor, "B 4 h w"]:
        """Return scaled latents of rendered views, differentiable."""
        rgb = fit_image(comp_rgb.permute(0, 3, 1, 2), self.model.image_size)
        return self.model.encode_image(rgb, noise)

    def draw(self, batch: int, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return posterior noise, timesteps and latent noise of a step."""
        size, n = self.model.latent_size, self.model.n_timesteps
        shape = (batch, self.model.latent_channels, size, size)
        posterior_noise = torch.randn(shape, generator=generator)
        low, high = self.min_percent(step), self.max_percent(step)
        if self.cfg.timesteps == "uniform":
            t = sample_timesteps(batch, low, high, n, generator).clamp_max(n - 1)
        else:
            t = annealed_timesteps(batch, low, high, n, step, self.cfg)
        noise = torch.randn(shape, generator=generator)
        return posterior_noise.to(self.device), t.to(self.device), noise.to(self.device)

    @torch.no_grad()
    def guided_noise(self, noised: Tensor, t: Tensor, cameras: Cameras) -> Float[Tensor, "B 4 h w"]:
        """Return the prompt's opinion, pushed away from the negative prompt's by the guidance scale."""
        positive = self.positive[self.view_of(cameras).to(self.positive.device)]
        context = torch.cat([positive, self.negative.expand_as(positive)])
        both = self.model.predict_noise(torch.cat([noised, noised]), torch.cat([t, t]), context)
        with_prompt, without = both.chunk(2)
        return without + self.cfg.guidance_scale * (with_prompt - without)

    def __call__(
        self, comp_rgb: Float[Tensor, "B H W 3"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> GuidanceOutput:
        """Return the loss of rendered views; with VSD the copy learns one step as well."""
        cameras = cameras.to(self.device)
        posterior_noise, t, noise = self.draw(len(cameras), step, generator)
        latents = self.encode(comp_rgb, posterior_noise)
        noised = self.model.add_noise(latents.detach(), noise, t)
        noise_pred = self.guided_noise(noised, t, cameras)
        baseline = noise
        if self.phi is not None:
            context = self.positive[self.view_of(cameras).to(self.positive.device)]
            self.phi.begin(step, cameras)
            baseline = self.phi.predict(noised, t, context)
            self.phi.learn(latents, (context,), *self.phi.draw(latents.shape, generator))
        clip = None if self.grad_clip is None else self.grad_clip(step)
        alphas = self.model.alphas_cumprod[t]
        grad = distillation_gradient(noise_pred, baseline, alphas, self.cfg, clip)
        return GuidanceOutput(loss=sds_loss(latents, grad), grad_norm=grad.norm(), timesteps=t)

    @torch.no_grad()
    def evaluate(
        self, comp_rgb: Float[Tensor, "B H W 3"], cameras: Cameras, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "B h w 3"]]:
        """Return the rendered, noised and one-step denoised views as the network sees them."""
        posterior_noise, t, noise = self.draw(len(cameras), step, generator)
        latents = self.encode(comp_rgb, posterior_noise)
        noised = self.model.add_noise(latents, noise, t)
        alpha = self.model.alphas_cumprod[t][:, None, None, None]
        noise_pred = self.guided_noise(noised, t, cameras.to(self.device))
        pictures = {"rendered": latents, "noised": noised}
        pictures["denoised"] = (noised - (1 - alpha).sqrt() * noise_pred) / alpha.sqrt()
        return {name: self.model.decode_latents(z).permute(0, 2, 3, 1) for name, z in pictures.items()}

    def describe(self) -> dict[str, str | bool | None]:
        """Return which model and prompt."""
        name = self.cfg.checkpoint
        return {"path": name, "family": "stable-diffusion", "bundled": False, "prompt": self.cfg.prompt}
