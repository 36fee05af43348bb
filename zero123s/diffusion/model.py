"""The Zero123 network: denoiser, autoencoder, image encoder and camera projection behind one small interface.

Images are B 3 H W in [0, 1] on white; latents are B 4 h w; every method returns the dtype of the tensors it was given,
whatever the dtype of the component that did the work.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPVisionConfig

from zero123s.diffusion import conditioning
from zero123s.diffusion.components import build_image_encoder, build_lift, build_projection, build_unet, build_vae
from zero123s.diffusion.model_config import ModelConfig
from zero123s.diffusion.sampling import Progress, sample_latents
from zero123s.errors import ConfigError

PerView = Float[Tensor, "B"] | Sequence[float] | float
"""One number per view, or one for all of them."""


class Zero123Model(nn.Module):
    """Predicts the noise in a view of an object from one image of it and the relative camera pose."""

    def __init__(self, config: ModelConfig, family: str = "stable-zero123") -> None:
        """Build the modules with PyTorch's default initialisation.

        Args:
            config: sizes and schedule; `config.clip` must be known.
            family: "stable-zero123" or "zero123": what the fourth pose term means (see `pose_vector`).
        """
        super().__init__()
        if family not in conditioning.FAMILIES:
            raise ConfigError(f"Unknown family '{family}'. Known: {', '.join(conditioning.FAMILIES)}.")
        if config.clip is None:
            raise ConfigError("The image encoder's sizes are unknown: give them under cond_stage_config.params.")
        self.config = config
        self.family = family
        self.info: dict[str, str] = {}
        """Where the weights come from: path, sha256, family, licence, dtype; empty for a model built from scratch."""
        self.unet = build_unet(config.unet)
        self.vae = build_vae(config.vae, config.scale_factor)
        self.image_encoder = build_image_encoder(config)
        self.cc_projection = build_projection(config)
        self.lift = build_lift(config)
        self.alphas_cumprod: Float[Tensor, "T"]
        # Never read from a file: half-precision files carry a ruined schedule.
        alphas = conditioning.alphas_cumprod(config.linear_start, config.linear_end, config.timesteps)
        self.register_buffer("alphas_cumprod", alphas, persistent=False)

    @property
    def image_size(self) -> int:
        """Edge in pixels of the model's input and output images."""
        return self.config.image_size

    @property
    def scale_factor(self) -> float:
        """Factor from the autoencoder's latents to scaled latents, which the denoiser works on."""
        return self.config.scale_factor

    @property
    def n_timesteps(self) -> int:
        """Length of the noise schedule."""
        return self.config.timesteps

    @property
    def latent_size(self) -> int:
        """Edge of the latents in cells."""
        return self.config.unet.image_size

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.config.vae.z_channels

    @property
    def device(self) -> torch.device:
        """Where the camera projection lives, and with it the model."""
        return self.cc_projection.weight.device

    # ---- conditioning ----

    def embed_image(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        """Embed the input image (before the camera projection, not normalised).

        Args:
            rgb: B 3 H W, on white, in [0, 1].

        Returns:
            B N D; N = 1 for the original family.
        """
        pixels = conditioning.clip_pixels(conditioning.fit_image(rgb, self.image_size), self._clip.image_size)
        return self.image_encoder(pixels.to(_dtype(self.image_encoder))).image_embeds[:, None].to(rgb.dtype)

    def encode_image(
        self,
        rgb: Float[Tensor, "B 3 H W"],
        generator: torch.Generator | None = None,
        noise: Float[Tensor, "B 4 h w"] | None = None,
    ) -> Float[Tensor, "B 4 h w"]:
        """Encode images to unscaled latents.

        Args:
            rgb: B 3 H W, on white, in [0, 1].
            generator: source of a sample of the posterior.
            noise: B 4 h w, standard normal, in place of the generator's; None for both = the posterior's mode.

        Returns:
            B 4 h w.
        """
        pixels = conditioning.fit_image(rgb, self.image_size) * 2 - 1
        posterior = self.vae.encode(pixels.to(_dtype(self.vae))).latent_dist
        mean = posterior.mean.to(rgb.dtype)
        if noise is None and generator is None:
            return mean
        if noise is None:
            noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=mean.dtype)  # type: ignore[union-attr]
        return mean + posterior.std.to(rgb.dtype) * noise.to(mean.device)

    def decode_latents(self, z: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        """Decode unscaled latents.

        Args:
            z: B 4 h w.

        Returns:
            B 3 H W, in [0, 1].

        Raises:
            ConfigError: the model was loaded with `decoder=False`.
        """
        if self.vae.decoder is None:
            raise ConfigError("This model was loaded without its decoder: load it with decoder=True.")
        return (self.vae.decode(z.to(_dtype(self.vae))).sample.to(z.dtype) / 2 + 0.5).clamp(0, 1)

    def pose_vector(
        self,
        elevation_deg: PerView,
        azimuth_deg: PerView,
        distance: PerView,
        cond_elevation_deg: PerView,
        cond_azimuth_deg: PerView,
        cond_distance: PerView,
    ) -> Float[Tensor, "B 4"]:
        """Describe target views relative to the input view, as this model's family was trained; see
        `conditioning.pose_vector`.

        Args:
            elevation_deg: of the target cameras, a number or one per view; so are the others.
            azimuth_deg: of the target cameras.
            distance: of the target cameras, in world units.
            cond_elevation_deg: of the input's camera.
            cond_azimuth_deg: of the input's camera.
            cond_distance: of the input's camera, in world units.

        Returns:
            B 4, angles in radians.
        """
        given = (elevation_deg, azimuth_deg, distance, cond_elevation_deg, cond_azimuth_deg, cond_distance)
        tensors = [torch.as_tensor(value, dtype=torch.float32, device=self.device).reshape(-1) for value in given]
        return conditioning.pose_vector(self.family, *torch.broadcast_tensors(*tensors))

    def project(self, embedding: Float[Tensor, "#B N D"], pose: Float[Tensor, "#B 4"]) -> Float[Tensor, "V N C"]:
        """Join embedding and pose to the context of the denoiser's cross-attention.

        Args:
            embedding: B N D, or 1 N D for several poses.
            pose: B 4, or 1 4 for several embeddings.

        Returns:
            V N C, V the larger of the two batches.
        """
        n_views = max(len(embedding), len(pose))
        embedding = embedding.expand(n_views, -1, -1)
        pose = pose.to(embedding.dtype)[:, None].expand(n_views, embedding.shape[1], -1)
        joined = torch.cat([embedding, pose], dim=-1)
        return self.cc_projection(joined.to(_dtype(self.cc_projection))).to(embedding.dtype)

    def lift_volume(
        self, image_latents: Float[Tensor, "B 4 h w"], pose: Float[Tensor, "V 4"]
    ) -> Float[Tensor, "B D H W G"] | None:
        """Lift image latents for `concat_for`, which takes the volume again for every step.

        Args:
            image_latents: B 4 h w, unscaled latents of the input view.
            pose: V 4; only the fourth term, the input view's own polar angle, matters.

        Returns:
            B D H W G, or None without a lift.
        """
        if self.lift is None:
            return None
        dtype = _dtype(self.lift)
        return self.lift.volume(image_latents.to(dtype), pose[: len(image_latents), 3].to(dtype))

    def concat_for(
        self,
        image_latents: Float[Tensor, "#B 4 h w"],
        pose: Float[Tensor, "#B 4"],
        volume: Float[Tensor, "#B D H W G"] | None = None,
    ) -> Float[Tensor, "V K h w"]:
        """Return what is concatenated to the noisy latents: the unscaled image latents, and the lift's maps if any.

        Args:
            image_latents: B 4 h w, or 1 4 h w for several poses.
            pose: B 4, or 1 4 for several images.
            volume: B D H W G, what `lift_volume` made of the same latents; None = lift them here.

        Returns:
            V K h w, V the larger of the two batches.
        """
        n_views = max(len(image_latents), len(pose))
        expanded = image_latents.expand(n_views, -1, -1, -1)
        if self.lift is None:
            return expanded
        volume = self.lift_volume(image_latents, pose) if volume is None else volume
        assert volume is not None
        poses = pose.to(volume.dtype).expand(n_views, -1).unflatten(0, (len(image_latents), -1))
        maps = self.lift.maps(self.lift.render(volume, poses))
        return torch.cat([expanded, maps.to(image_latents.dtype)], dim=1)

    # ---- the denoiser ----

    def denoise(
        self,
        latents: Float[Tensor, "B 4 h w"],
        t: Int[Tensor, "B"],
        context: Float[Tensor, "B N C"],
        concat: Float[Tensor, "B K h w"],
        *,
        unet: nn.Module | None = None,
    ) -> Float[Tensor, "B 4 h w"]:
        """Return the network's own output: eps or v, as `config.parameterization` says. Training compares this.

        Args:
            latents: B 4 h w, scaled and noised.
            t: B, timesteps in [0, T).
            context: B N C, from `project`.
            concat: B K h w, from `concat_for`.
            unet: takes the place of the model's own denoiser.

        Returns:
            B 4 h w.
        """
        denoiser = self.unet if unet is None else unet
        dtype = _dtype(denoiser)
        sample = torch.cat([latents, concat], dim=1).to(dtype)
        return denoiser(sample, t, context.to(dtype)).sample.to(latents.dtype)

    def predict_noise(
        self,
        latents: Float[Tensor, "B 4 h w"],
        t: Int[Tensor, "B"],
        context: Float[Tensor, "B N C"],
        concat: Float[Tensor, "B K h w"],
        *,
        unet: nn.Module | None = None,
    ) -> Float[Tensor, "B 4 h w"]:
        """Predict the noise in scaled latents, whatever the network's parameterisation.

        Args:
            latents: B 4 h w, scaled and noised.
            t: B, timesteps in [0, T).
            context: B N C, from `project`.
            concat: B K h w, from `concat_for`.
            unet: takes the place of the model's own denoiser.

        Returns:
            B 4 h w, eps.
        """
        output = self.denoise(latents, t, context, concat, unet=unet)
        if self.config.parameterization == "eps":
            return output
        signal = self.alphas_cumprod[t].to(latents.dtype).view(-1, 1, 1, 1)
        return signal.sqrt() * output + (1 - signal).sqrt() * latents

    def guided_noise(
        self,
        latents: Float[Tensor, "B 4 h w"],
        t: Int[Tensor, "B"],
        context: Float[Tensor, "B N C"],
        concat: Float[Tensor, "B K h w"],
        scale: float,
    ) -> Float[Tensor, "B 4 h w"]:
        """Predict with classifier-free guidance, eu + scale (ec - eu), both branches in one call of the network.

        The unconditional branch gets zeros for the projected context and for everything concatenated.

        Args:
            latents: B 4 h w, scaled and noised.
            t: B, timesteps in [0, T).
            context: B N C, from `project`.
            concat: B K h w, from `concat_for`.
            scale: strength of guidance; 1 = the conditional branch alone.

        Returns:
            B 4 h w, eps.
        """
        if scale == 1:
            return self.predict_noise(latents, t, context, concat)
        both = [torch.cat([torch.zeros_like(x), x]) for x in (context, concat)]
        eps_uncond, eps_cond = self.predict_noise(latents.repeat(2, 1, 1, 1), t.repeat(2), *both).chunk(2)
        return eps_uncond + scale * (eps_cond - eps_uncond)

    def add_noise(
        self, latents: Float[Tensor, "B 4 h w"], noise: Float[Tensor, "B 4 h w"], t: Int[Tensor, "B"]
    ) -> Float[Tensor, "B 4 h w"]:
        """Return sqrt(a_t) latents + sqrt(1 - a_t) noise.

        Args:
            latents: B 4 h w, scaled.
            noise: B 4 h w, standard normal.
            t: B, timesteps in [0, T).

        Returns:
            B 4 h w.
        """
        signal = self.alphas_cumprod[t].to(latents.dtype).view(-1, 1, 1, 1)
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise

    @torch.no_grad()
    def sample(
        self,
        rgb: Float[Tensor, "1 3 H W"],
        elevation_deg: PerView,
        azimuth_deg: PerView,
        distance: PerView = 3.8,
        cond_elevation_deg: float = 0.0,
        cond_azimuth_deg: float = 0.0,
        cond_distance: float = 3.8,
        steps: int = 50,
        scale: float = 3.0,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        sampler: str = "ddim",
        progress: Progress | None = None,
    ) -> Float[Tensor, "B 3 S S"]:
        """Sample the object from other cameras, given one image of it.

        Args:
            rgb: 1 3 H W, the input image on white, in [0, 1].
            elevation_deg: of the target cameras, a number or one per view.
            azimuth_deg: of the target cameras, a number or one per view.
            distance: of the target cameras, in world units, a number or one per view.
            cond_elevation_deg: of the input's camera.
            cond_azimuth_deg: of the input's camera.
            cond_distance: of the input's camera, in world units.
            steps: network evaluations per view; this and the next as in `sampling.sample_latents`.
            scale: strength of classifier-free guidance.
            eta: fresh noise per step, 0 to 1.
            generator: source of all randomness; None = seed 0.
            sampler: "ddim", "euler", "dpm-solver" or "original".
            progress: called with (done, total) after every step.

        Returns:
            B 3 S S, in [0, 1], of the model's size.
        """
        source = generator if generator is not None else torch.Generator().manual_seed(0)
        pose_arguments = (elevation_deg, azimuth_deg, distance, cond_elevation_deg, cond_azimuth_deg, cond_distance)
        pose = self.pose_vector(*pose_arguments)
        rgb = rgb.to(self.device)
        # The image is encoded once and shared by all views.
        context = self.project(self.embed_image(rgb), pose)
        concat = self.concat_for(self.encode_image(rgb), pose)
        shape = (len(pose), self.latent_channels, self.latent_size, self.latent_size)
        noise = torch.randn(shape, generator=source, device=source.device).to(self.device)
        latents = sample_latents(self, noise, context, concat, steps, scale, eta, source, sampler, progress)
        return self.decode_latents(latents / self.scale_factor)

    @property
    def _clip(self) -> CLIPVisionConfig:
        return self.image_encoder.config


def build_model(config: ModelConfig, family: str = "stable-zero123") -> Zero123Model:
    """Return a model to train from scratch, the camera projection initialised as in the original.

    Its embedding columns are the identity and its bias is zero; the four pose columns keep their random values.

    Args:
        config: sizes and schedule.
        family: "stable-zero123" or "zero123".

    Returns:
        A model with random weights.
    """
    model = Zero123Model(config, family)
    with torch.no_grad():
        weight = model.cc_projection.weight
        weight[:, :-4] = torch.eye(*weight[:, :-4].shape)
        model.cc_projection.bias.zero_()
    return model


def _dtype(module: nn.Module) -> torch.dtype:
    """The type a component computes in, which speed.compute_in_float32 parts from the one it is stored in."""
    return getattr(module, "compute_dtype", None) or next(module.parameters()).dtype
