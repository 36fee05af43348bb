"""Score distillation with Zero123 and Stable Zero123, conditioned on an image and the relative pose of each view."""

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from zero123s.config.options import option
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.checkpoint.locate import locate_checkpoint
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.sampling import sample_latents
from zero123s.diffusion.shared import shared
from zero123s.diffusion.speed import speed_up
from zero123s.errors import ConfigError
from zero123s.guidance.base import GUIDANCES, BaseGuidance
from zero123s.guidance.distillation import ScoreDistillation
from zero123s.guidance.distillation_config import DistillationConfig
from zero123s.guidance.lifted_field import LiftedField, composite_on_white, evenly_chosen
from zero123s.guidance.sds import VARIANTS, Condition
from zero123s.structures import Cameras, ReferenceView

logger = logging.getLogger(__name__)

_LOADING = ("config", "ema", "dtype", "fast", "channels_last", "compile")
"""Settings that determine the loaded networks."""


@GUIDANCES.register("stable-zero123-guidance")
class StableZero123Guidance(ScoreDistillation):
    """Score distillation with a Zero123 network conditioned on the input view.

    Conditioning, weights and sampling follow threestudio's stable-zero123 guidance; see docs/conventions.md.
    """

    family = "auto"

    @dataclass
    class Config(BaseGuidance.Config, DistillationConfig):
        """Settings of `stable-zero123-guidance` and `zero123-guidance`."""

        checkpoint: str = option("auto", path=True)
        """"auto" (load/zero123/stable_zero123.ckpt, else the bundled small model), a file, or a diffusers folder."""
        config: str | None = option(None, path=True)
        """YAML of the network's sizes with the original's keys; None = read from the checkpoint."""
        family: str = option("auto", choices=("auto", "stable-zero123", "zero123"))
        """Which meaning the fourth pose term has; "auto" = by the checkpoint's name."""
        ema: bool = True
        """Use the EMA weights where the file has both."""
        dtype: str = "auto"
        """"fp32", "bf16", "fp16", or "auto" = by device."""
        guidance_scale: float = option(5.0, low=0.0)
        """Classifier-free guidance scale."""
        input_view_weight: float = option(1.0, low=0.0, high=1.0)
        """Weight of a view's guidance in the direction of an input view; it grows to 1 at 90 degrees from it: less guidance
        where the image itself supervises."""
        max_conditions: int = option(8, low=1)
        """Largest number of reference views that condition the model, evenly chosen; each view uses the nearest."""
        fast: bool = True
        """Use faster implementations; the results of large convolutions on a CPU differ in the fifth decimal."""
        channels_last: bool | None = None
        """Lay images out with the channels last: slower on the one GPU it was measured on (an H200); null = no."""
        compile: bool = False
        """Compile denoiser and encoder with torch.compile: minutes at the first step, needs a C++ compiler."""

    cfg: Config
    model: Zero123Model

    @classmethod
    def requirements(cls, cfg: Config) -> dict[str, str | bool | None]:
        """Return which checkpoint would be loaded; raises CheckpointError, MissingDependencyError for what is missing."""
        VARIANTS[cfg.variant].check()
        located = locate_checkpoint(cfg.checkpoint)
        return {"path": str(located.path), "bundled": located.bundled}

    def __init__(self, cfg: Config, reference: ReferenceView | None, device: torch.device | str = "cpu") -> None:
        if reference is None:
            raise ConfigError(
                "Zero123 is conditioned on an input image, and this system has none; use stable-diffusion-guidance."
            )
        self.located = locate_checkpoint(cfg.checkpoint)
        super().__init__(cfg, reference, device)
        self.image_size = self.model.image_size
        self._condition_on(reference)

    def load_model(self) -> Zero123Model:
        """Return the network of the settings, shared between the runs of one process."""
        # Nothing changes the networks once they are loaded, so runs of one process may share them.
        key = ("zero123", str(self.located.path), self._family(), *(getattr(self.cfg, name) for name in _LOADING))
        return shared((*key, str(self.device)), self._load_fast)

    def _family(self) -> str:
        return self.cfg.family if self.cfg.family != "auto" else self.family

    def _load_fast(self) -> Zero123Model:
        cfg = self.cfg
        return speed_up(self._load(decoder=False), cfg.fast, bool(cfg.channels_last), cfg.compile)

    def _load(self, decoder: bool) -> Zero123Model:
        cfg = self.cfg
        return load_zero123(
            self.located.path, cfg.config, self._family(), cfg.ema, cfg.dtype, device=self.device, decoder=decoder
        )

    @torch.no_grad()
    def _condition_on(self, reference: ReferenceView) -> None:
        """Embed and encode the reference views, of many at most `max_conditions`, evenly chosen."""
        reference = evenly_chosen(reference, self.cfg.max_conditions).to(self.device)
        size, (height, width) = self.model.image_size, reference.rgb.shape[1:3]
        if height != width:
            raise ConfigError(
                f"data.height, data.width: images of {width}x{height} pixels would be squeezed to Zero123's "
                "square input; give it square images, or set system.loss.lambda_sds=0."
            )
        if height < size:
            logger.warning(
                "note: the input resolution of the model is %d pixels, and its image has %d; a larger data.height may help.",
                size,
                height,
            )
        image = composite_on_white(reference, size)
        self.cond_cameras = reference.cameras
        self.cond_embedding = self.model.embed_image(image)
        self.cond_latents = self.model.encode_image(image)
        own_pose = self._pose(reference.cameras, torch.arange(len(reference.cameras)))
        self.cond_volume = self.model.lift_volume(self.cond_latents, own_pose)

    def scene(self, bound: float) -> LiftedField | None:
        """Return the volumes that the pose lift predicts from the input views; None = the model has no lift."""
        if self.cond_volume is None or self.model.lift is None:
            return None
        return LiftedField(self.model.lift, self.cond_volume, self.cond_cameras, bound)

    @torch.no_grad()
    def sample(self, cameras: Cameras, steps: int, generator: torch.Generator) -> Float[Tensor, "V h w 3"]:
        """Return views by DDIM, one at a time, with the settings' guidance scale."""
        size, images = self.model.latent_size, []
        for i in range(len(cameras)):
            context, concat = self.condition(cameras.select(slice(i, i + 1)).to(self.device))
            noise = torch.randn((1, 4, size, size), generator=generator).to(self.device)
            latents = sample_latents(self.model, noise, context, concat, steps, self.cfg.guidance_scale)
            images.append(self.decode(latents))
        return torch.cat(images).permute(0, 2, 3, 1)

    def nearest(self, cameras: Cameras) -> Int[Tensor, "B"]:
        """Return the index of the reference view with the most similar viewing direction, for each camera."""
        return self._cosines(cameras).argmax(dim=1)

    def _cosines(self, cameras: Cameras) -> Float[Tensor, "B V"]:
        """Return the cosine of the angle between every camera's direction and every reference view's."""
        directions = [F.normalize(c.positions.to(self.device), dim=-1) for c in (cameras, self.cond_cameras)]
        return directions[0] @ directions[1].T

    def view_weights(self, cameras: Cameras) -> Float[Tensor, "B"] | None:
        """Return w + (1 - w) sin^2 of the angle to the nearest input view, 1 behind 90 degrees; w is
        `input_view_weight`.
        """
        least = self.cfg.input_view_weight
        if least == 1:
            return None
        cosine = self._cosines(cameras).amax(dim=1).clamp(0, 1)
        return least + (1 - least) * (1 - cosine.square())

    def _pose(self, cameras: Cameras, source: Int[Tensor, "B"]) -> Float[Tensor, "B 4"]:
        """Return the pose of each camera relative to the reference view numbered `source`."""
        own = self.cond_cameras
        cond = (own.elevation_deg[source], own.azimuth_deg[source], own.distance[source])
        return self.model.pose_vector(cameras.elevation_deg, cameras.azimuth_deg, cameras.distance, *cond)

    def condition(self, cameras: Cameras) -> Condition:
        """Return (context B N C, concat B c h w) of the target views, each relative to its nearest reference view."""
        source = self.nearest(cameras)
        pose = self._pose(cameras, source)
        if len(self.cond_cameras) == 1:  # one image is lifted once for all views
            embedding, latents, volume = self.cond_embedding, self.cond_latents, self.cond_volume
        else:
            embedding, latents = self.cond_embedding[source], self.cond_latents[source]
            volume = None if self.cond_volume is None else self.cond_volume[source]
        context = self.model.project(embedding, pose)
        return context, self.model.concat_for(latents, pose, volume)

    def unconditional(self, condition: Condition) -> Condition:
        """Return zeros for the projected context and for everything concatenated."""
        return tuple(torch.zeros_like(x) for x in condition)

    def encode(
        self, comp_rgb: Float[Tensor, "B H W 3"], posterior_noise: Float[Tensor, "B 4 h w"]
    ) -> Float[Tensor, "B 4 h w"]:
        """Return scaled latents of rendered views, resized to the model's input; differentiable."""
        rgb = comp_rgb.permute(0, 3, 1, 2)
        return self.model.scale_factor * self.model.encode_image(rgb, noise=posterior_noise.to(rgb))

    def decode(self, latents: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        """Return images in [0, 1] of scaled latents; loads the decoder, which distillation itself does not need."""
        if self.model.vae.decoder is None:
            # The decoder alone: the encoder that runs compute with stays the very same one.
            whole = self._load(decoder=True).vae
            self.model.vae.decoder, self.model.vae.post_quant_conv = whole.decoder, whole.post_quant_conv
        return self.model.decode_latents(latents / self.model.scale_factor).float().clamp(0, 1)

    def describe(self) -> dict[str, str | bool | None]:
        """Return file name, hash, family and whether the model is the bundled one."""
        return {
            "path": self.located.path.name,
            "sha256": self.model.info.get("sha256"),
            "family": self.model.family,
            "license": self.model.info.get("license"),
            "weights": self.model.info.get("weights"),
            "dtype": self.model.info.get("dtype"),
            "bundled": self.located.bundled,
        }


@GUIDANCES.register("zero123-guidance")
class Zero123Guidance(StableZero123Guidance):
    """Score distillation with the original Zero123 or Zero123-XL, whose fourth pose term is the change of distance."""

    family = "zero123"
