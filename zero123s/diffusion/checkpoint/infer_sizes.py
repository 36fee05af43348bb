"""Derives the sizes of a Zero123 model from the tensors of a checkpoint that states none."""

from collections.abc import Mapping

from zero123s.diffusion.model_config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig
from zero123s.errors import CheckpointError


def infer_model_config(shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """Derive the sizes from the tensors of a checkpoint in the original layout.

    The number of heads, the image size and the schedule leave no trace in the tensors; they are the original's (8
    heads, 32 x 32 latents, scaled-linear 0.00085 to 0.0120).

    Args:
        shapes: of the tensors, by their names in the original layout.

    Returns:
        The sizes.

    Raises:
        CheckpointError: a tensor is missing.
    """
    try:
        return ModelConfig(unet=_infer_unet(shapes), vae=_infer_vae(shapes), clip=infer_clip_config(shapes))
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"Cannot derive the model's sizes from its tensors: {error} is missing.") from error


def infer_clip_config(shapes: Mapping[str, tuple[int, ...]]) -> CLIPConfig:
    """Derive the image encoder's sizes from its tensors; the number of heads is width / 64, as in every OpenAI CLIP.

    Args:
        shapes: of the tensors, by their names in the original layout.

    Returns:
        The sizes.
    """
    visual = "cond_stage_model.model.visual."
    width, _, patch, _ = shapes[visual + "conv1.weight"]
    grid = round((shapes[visual + "positional_embedding"][0] - 1) ** 0.5)
    blocks = {key[len(visual) :].split(".")[2] for key in shapes if key.startswith(visual + "transformer.resblocks.")}
    return CLIPConfig(grid * patch, patch, width, len(blocks), max(1, width // 64), shapes[visual + "proj"][1])


def _infer_unet(shapes: Mapping[str, tuple[int, ...]]) -> UNetConfig:
    unet = "model.diffusion_model."
    model_channels, in_channels = shapes[unet + "input_blocks.0.0.weight"][:2]
    mults, attention, n_blocks, level = [], [], 0, 0
    index = 1
    context_dim = shapes[unet + "middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]
    while (
        f"{unet}input_blocks.{index}.0.op.weight" in shapes
        or f"{unet}input_blocks.{index}.0.out_layers.3.weight" in shapes
    ):
        if f"{unet}input_blocks.{index}.0.op.weight" in shapes:
            level += 1
        else:
            width = shapes[f"{unet}input_blocks.{index}.0.out_layers.3.weight"][0]
            if level == len(mults):
                mults.append(width // model_channels)
            n_blocks += level == 0
            if f"{unet}input_blocks.{index}.1.norm.weight" in shapes and 2**level not in attention:
                attention.append(2**level)
        index += 1
    return UNetConfig(
        in_channels=in_channels,
        out_channels=shapes[unet + "out.2.weight"][0],
        model_channels=model_channels,
        attention_resolutions=tuple(reversed(attention)),
        num_res_blocks=n_blocks,
        channel_mult=tuple(mults),
        context_dim=context_dim,
    )


def _infer_vae(shapes: Mapping[str, tuple[int, ...]]) -> VAEConfig:
    encoder = "first_stage_model.encoder."
    ch = shapes[encoder + "conv_in.weight"][0]
    mults, level = [], 0
    while f"{encoder}down.{level}.block.0.conv1.weight" in shapes:
        mults.append(shapes[f"{encoder}down.{level}.block.0.conv1.weight"][0] // ch)
        level += 1
    n_blocks = sum(f"{encoder}down.0.block.{i}.conv1.weight" in shapes for i in range(16))
    z_channels = shapes["first_stage_model.post_quant_conv.weight"][0]
    return VAEConfig(embed_dim=z_channels, z_channels=z_channels, ch=ch, ch_mult=tuple(mults), num_res_blocks=n_blocks)
