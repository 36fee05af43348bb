"""Stable Diffusion as score distillation uses it, loaded from a diffusers folder or hub id."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from zero123s.errors import CheckpointError
from zero123s.runtime.files import user_path


class TextModel(nn.Module):
    """Stable Diffusion 1.x or 2.x: encodes prompts and images, and predicts the noise in latents.

    Args:
        vae: autoencoder.
        unet: denoiser.
        text_encoder: CLIP's text encoder.
        tokenizer: of the text encoder.
        scheduler: noise schedule and parameterisation that the denoiser was trained with.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: DDPMScheduler,
    ) -> None:
        super().__init__()
        self.vae, self.unet, self.text_encoder = vae, unet, text_encoder
        self.tokenizer = tokenizer
        self.prediction = str(scheduler.config["prediction_type"])
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float(), persistent=False)
        self.scale_factor = float(vae.config["scaling_factor"])
        self.latent_size = int(unet.config["sample_size"])
        self.image_size = self.latent_size * 2 ** (len(vae.config["block_out_channels"]) - 1)
        self.alphas_cumprod: Tensor
        self.requires_grad_(False).eval()

    @property
    def n_timesteps(self) -> int:
        """Length of the noise schedule."""
        return len(self.alphas_cumprod)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config["latent_channels"])

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "B N C"]:
        """Embed prompts for the denoiser's cross-attention.

        Args:
            prompts: B texts; longer ones are cut at the encoder's length.

        Returns:
            B N C, the context.
        """
        tokens = self.tokenizer(  # type: ignore[operator]
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.alphas_cumprod.device)  # type: ignore[union-attr]
        return self.text_encoder(ids)[0]

    def encode_image(self, rgb: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 4 h w"]:
        """Encode images to scaled latents, sampled from the posterior; differentiable.

        Args:
            rgb: B 3 H W, in [0, 1].
            noise: B 4 h w, standard normal.

        Returns:
            B 4 h w, scaled.
        """
        posterior = self.vae.encode((2 * rgb - 1).to(self.vae.dtype)).latent_dist  # type: ignore[union-attr]
        return self.scale_factor * (posterior.mean + posterior.std * noise.to(posterior.std)).float()

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        """Decode scaled latents to images.

        Args:
            latents: B 4 h w, scaled.

        Returns:
            B 3 H W, in [0, 1].
        """
        rgb = self.vae.decode((latents / self.scale_factor).to(self.vae.dtype)).sample  # type: ignore[union-attr]
        return (rgb.float() / 2 + 0.5).clamp(0, 1)

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
        alpha = self.alphas_cumprod[t][:, None, None, None]
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def predict_noise(
        self,
        noised: Float[Tensor, "B 4 h w"],
        t: Int[Tensor, "B"],
        context: Float[Tensor, "B N C"],
        *,
        unet: nn.Module | None = None,
    ) -> Float[Tensor, "B 4 h w"]:
        """Predict the noise in latents, whatever parameterisation the denoiser was trained with.

        Args:
            noised: B 4 h w, scaled latents with noise.
            t: B, timesteps in [0, T).
            context: B N C, from `embed`.
            unet: another denoiser in place of the model's own.

        Returns:
            B 4 h w, float32.
        """
        denoiser: nn.Module = unet or self.unet  # type: ignore[assignment]
        dtype = next(denoiser.parameters()).dtype
        out = denoiser(noised.to(dtype), t, encoder_hidden_states=context.to(dtype)).sample.float()
        if self.prediction == "epsilon":
            return out
        alpha = self.alphas_cumprod[t][:, None, None, None]
        return alpha.sqrt() * out + (1 - alpha).sqrt() * noised  # v-prediction (Salimans and Ho 2022)


def load_text_model(name: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> TextModel:
    """Load a Stable Diffusion pipeline part by part.

    Args:
        name: a folder of the diffusers layout, or a hub id.
        dtype: of the weights.
        device: where the model computes.

    Returns:
        A frozen model in eval mode.

    Raises:
        CheckpointError: the pipeline cannot be loaded, or predicts neither noise nor v; the message says what to do.
    """
    try:
        model = TextModel(
            AutoencoderKL.from_pretrained(name, subfolder="vae", torch_dtype=dtype),
            UNet2DConditionModel.from_pretrained(name, subfolder="unet", torch_dtype=dtype),
            CLIPTextModel.from_pretrained(name, subfolder="text_encoder", torch_dtype=dtype),
            CLIPTokenizer.from_pretrained(name, subfolder="tokenizer"),
            DDPMScheduler.from_pretrained(name, subfolder="scheduler"),
        )
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{_missing(name)} ({' '.join(str(error).split())[:160]})") from error
    if model.prediction not in ("epsilon", "v_prediction"):
        raise CheckpointError(f"'{name}' predicts '{model.prediction}'; epsilon or v_prediction is needed.")
    return model.to(device)


def check_text_model(name: str) -> None:
    """Check that a path holds a pipeline; whether a hub id exists is only known when it is loaded.

    Args:
        name: a folder of the diffusers layout, or a hub id.

    Raises:
        CheckpointError: the path holds no pipeline.

    Example:
        >>> from zero123s.diffusion.text_model import check_text_model
        >>> check_text_model("stabilityai/stable-diffusion-2-1-base")  # a hub id: nothing to check yet
    """
    path = user_path(name)
    looks_like_path = path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_path and not (path / "unet").is_dir():
        raise CheckpointError(_missing(name))


def _missing(name: str) -> str:
    return (
        f"The text-to-image model '{name}' cannot be loaded: give a diffusers folder (with vae/, unet/, text_encoder/, "
        f"tokenizer/ and scheduler/), or fetch one with `huggingface-cli download {name}` where there is a network."
    )
