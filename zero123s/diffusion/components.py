"""The networks that a Zero123 model consists of, built from their sizes with random weights."""

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from zero123s.diffusion.lift import PoseLift
from zero123s.diffusion.model_config import ModelConfig, UNetConfig, VAEConfig


def build_unet(config: UNetConfig) -> UNet2DConditionModel:
    """Build the denoiser with random weights.

    Args:
        config: its sizes.

    Returns:
        A U-Net of diffusers.
    """
    attends = [2**level in config.attention_resolutions for level in range(len(config.channel_mult))]
    return UNet2DConditionModel(
        sample_size=config.image_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        block_out_channels=tuple(config.model_channels * m for m in config.channel_mult),
        layers_per_block=config.num_res_blocks,
        transformer_layers_per_block=config.transformer_depth,
        cross_attention_dim=config.context_dim,
        # For this class the argument is the number of heads, whatever its name says.
        attention_head_dim=config.num_heads,
    )


def build_vae(config: VAEConfig, scale_factor: float) -> AutoencoderKL:
    """Build the autoencoder with random weights.

    Args:
        config: its sizes.
        scale_factor: scaled latents are this times unscaled ones.

    Returns:
        An autoencoder of diffusers.
    """
    n_levels = len(config.ch_mult)
    return AutoencoderKL(
        in_channels=config.in_channels,
        out_channels=config.out_ch,
        down_block_types=("DownEncoderBlock2D",) * n_levels,
        up_block_types=("UpDecoderBlock2D",) * n_levels,
        block_out_channels=tuple(config.ch * m for m in config.ch_mult),
        layers_per_block=config.num_res_blocks,
        latent_channels=config.z_channels,
        sample_size=config.resolution,
        scaling_factor=scale_factor,
    )


def build_image_encoder(config: ModelConfig) -> CLIPVisionModelWithProjection:
    """Build CLIP's vision tower with OpenAI's activation and random weights.

    Args:
        config: sizes; `config.clip` must not be None.

    Returns:
        A vision model of transformers.
    """
    clip = config.clip
    assert clip is not None
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=clip.width,
            intermediate_size=4 * clip.width,
            num_hidden_layers=clip.layers,
            num_attention_heads=clip.heads,
            image_size=clip.image_size,
            patch_size=clip.patch_size,
            projection_dim=clip.output_dim,
            hidden_act="quick_gelu",
        )
    )


def build_projection(config: ModelConfig) -> nn.Linear:
    """Build the linear layer from the image embedding and the four pose terms to the denoiser's context.

    Args:
        config: sizes; `config.clip` must not be None.

    Returns:
        A layer from D + 4 to C channels.
    """
    assert config.clip is not None
    return nn.Linear(config.clip.output_dim + 4, config.unet.context_dim)


def build_lift(config: ModelConfig) -> PoseLift | None:
    """Build the pose lift with random weights.

    Args:
        config: `config.pose_lift` has its arguments.

    Returns:
        The pose lift, None for a model without one.
    """
    if config.pose_lift is None:
        return None
    return PoseLift(**config.pose_lift)
