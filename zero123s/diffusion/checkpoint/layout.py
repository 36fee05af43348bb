"""Maps parameters of the diffusers and transformers modules to tensors of a checkpoint in the original layout.

One table serves reading and writing: `WeightSource` says which tensor of the original file a parameter comes from and
how its shape differs. The table is derived from the modules' parameter names, so it is complete by construction.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from zero123s.diffusion.model_config import ModelConfig

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.model.visual."
PROJECTION = "cc_projection."
LIFT = "pose_lift."
# Parts of the original file that no image model needs: CLIP's text side, the schedule, counters of the average.
UNUSED_PREFIXES = ("cond_stage_model.model.", "model_ema.", "logvar", "lvlb_weights")
SCHEDULE_BUFFERS = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
)  # fmt: skip


@dataclass(frozen=True)
class WeightSource:
    """Where a parameter lies in a checkpoint of the original layout."""

    key: str
    part: int | None = None
    """Which third (query, key, value) of a packed attention matrix; None = all of it."""
    squeeze: bool = False
    """The original is a 1 x 1 convolution [c, c, 1, 1], the parameter a linear layer's [c, c]."""
    transpose: bool = False

    def extract(self, original: Tensor) -> Tensor:
        """Take the parameter out of the original tensor.

        Args:
            original: the tensor called `key`.

        Returns:
            A view of it.

        Example:
            >>> import torch
            >>> from zero123s.diffusion.checkpoint.layout import WeightSource
            >>> packed = torch.arange(12.0).reshape(6, 2)  # query, key and value
            >>> WeightSource("attn.in_proj_weight", part=1).extract(packed)
            tensor([[4., 5.],
                    [6., 7.]])
        """
        if self.part is not None:
            original = original.chunk(3)[self.part]
        if self.squeeze:
            original = original.flatten(1)
        return original.T if self.transpose else original

    def original_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Compute the shape of the original tensor.

        Args:
            shape: of the parameter.

        Returns:
            The shape of the tensor called `key`.

        Example:
            >>> from zero123s.diffusion.checkpoint.layout import WeightSource
            >>> WeightSource("attn.in_proj_weight", part=1).original_shape((2, 2))
            (6, 2)
        """
        if self.transpose:
            shape = shape[::-1]
        if self.part is not None:
            shape = (3 * shape[0], *shape[1:])
        return (*shape, 1, 1) if self.squeeze else shape


def weight_sources(config: ModelConfig, component: str, names: Iterable[str]) -> dict[str, WeightSource]:
    """Map the parameters of one component to the original layout.

    Args:
        config: sizes of the model.
        component: "unet", "vae", "image_encoder", "cc_projection" or "lift": an attribute of `Zero123Model`.
        names: the component's parameter names.

    Returns:
        Where each parameter lies, by its name.

    Example:
        >>> from zero123s.diffusion.checkpoint.layout import weight_sources
        >>> from zero123s.diffusion.model_config import ModelConfig
        >>> weight_sources(ModelConfig(), "unet", ["conv_in.weight"])["conv_in.weight"].key
        'model.diffusion_model.input_blocks.0.0.weight'
    """
    if component == "unet":
        prefixes = _unet_prefixes(config)
        return {name: WeightSource(UNET + _renamed(name, prefixes, _UNET_INNER)) for name in names}
    if component == "vae":
        prefixes = _vae_prefixes(config)
        return {name: _vae_source(name, prefixes) for name in names}
    if component == "image_encoder":
        return {name: _clip_source(name) for name in names}
    prefix = {"cc_projection": PROJECTION, "lift": LIFT}[component]
    return {name: WeightSource(prefix + name) for name in names}


def ema_name(key: str) -> str:
    """Name the moving average of a tensor; the original drops the dots, so the inverse does not exist.

    Args:
        key: of the tensor in the original layout.

    Returns:
        The key of its average.

    Example:
        >>> from zero123s.diffusion.checkpoint.layout import ema_name
        >>> ema_name("model.diffusion_model.out.2.bias")
        'model_ema.diffusion_modelout2bias'
    """
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def part_key(source: WeightSource) -> str:
    """Name one part of a packed tensor, as folders of the diffusers layout store it.

    Args:
        source: of the parameter.

    Returns:
        A key, unique in the file.

    Example:
        >>> from zero123s.diffusion.checkpoint.layout import WeightSource, part_key
        >>> part_key(WeightSource("attn.in_proj_weight", part=1))
        'parts/attn.in_proj_weight/1'
    """
    return f"parts/{source.key}" if source.part is None else f"parts/{source.key}/{source.part}"


def join_parts(parts: list[tuple[WeightSource, Tensor]]) -> Tensor:
    """Rebuild an original tensor from its parameters; the inverse of `WeightSource.extract`.

    Args:
        parts: one parameter, or the three attention matrices of a packed tensor, in any order.

    Returns:
        The original tensor, contiguous.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.checkpoint.layout import WeightSource, join_parts
        >>> parts = [(WeightSource("attn.in_proj_bias", part=i), torch.full((1,), float(i))) for i in (2, 0, 1)]
        >>> join_parts(parts)
        tensor([0., 1., 2.])
    """
    tensors = []
    for source, tensor in sorted(parts, key=lambda item: item[0].part or 0):
        whole = tensor.T if source.transpose else tensor
        tensors.append(whole[:, :, None, None] if source.squeeze else whole)
    return (tensors[0] if len(tensors) == 1 else torch.cat(tensors)).contiguous()


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_INNER = {"resnets": _RESNET}


def _unet_prefixes(config: ModelConfig) -> dict[str, str]:
    """Return diffusers block -> original block for the whole denoiser."""
    unet = config.unet
    n_levels = len(unet.channel_mult)
    attends = [2**level in unet.attention_resolutions for level in range(n_levels)]
    prefixes = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    index = 1
    for level in range(n_levels):
        for block in range(unet.num_res_blocks):
            prefixes[f"down_blocks.{level}.resnets.{block}"] = f"input_blocks.{index}.0"
            prefixes[f"down_blocks.{level}.attentions.{block}"] = f"input_blocks.{index}.1"
            index += 1
        if level < n_levels - 1:
            prefixes[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{index}.0.op"
            index += 1
    index = 0
    for up, level in enumerate(reversed(range(n_levels))):
        for block in range(unet.num_res_blocks + 1):
            prefixes[f"up_blocks.{up}.resnets.{block}"] = f"output_blocks.{index}.0"
            prefixes[f"up_blocks.{up}.attentions.{block}"] = f"output_blocks.{index}.1"
            index += 1
        # The upsampler closes the level's last block, behind its transformer if the level has one.
        prefixes[f"up_blocks.{up}.upsamplers.0.conv"] = f"output_blocks.{index - 1}.{1 + attends[level]}.conv"
    return prefixes


def _vae_prefixes(config: ModelConfig) -> dict[str, str]:
    """Return diffusers block -> original block for the autoencoder; the original counts decoder levels downwards."""
    vae = config.vae
    n_levels = len(vae.ch_mult)
    prefixes = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        prefixes |= {f"{side}.conv_in": f"{side}.conv_in", f"{side}.conv_out": f"{side}.conv_out"}
        prefixes |= {f"{side}.conv_norm_out": f"{side}.norm_out"}
        prefixes |= {f"{side}.mid_block.resnets.{i}": f"{side}.mid.block_{i + 1}" for i in range(2)}
        prefixes |= {f"{side}.mid_block.attentions.0": f"{side}.mid.attn_1"}
    for level in range(n_levels):
        up = n_levels - 1 - level
        for block in range(vae.num_res_blocks):
            prefixes[f"encoder.down_blocks.{level}.resnets.{block}"] = f"encoder.down.{level}.block.{block}"
        for block in range(vae.num_res_blocks + 1):
            prefixes[f"decoder.up_blocks.{up}.resnets.{block}"] = f"decoder.up.{level}.block.{block}"
        prefixes[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        prefixes[f"decoder.up_blocks.{up}.upsamplers.0.conv"] = f"decoder.up.{level}.upsample.conv"
    return prefixes


_VAE_INNER = {
    "resnets": {"conv_shortcut": "nin_shortcut"},
    "attentions": {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"},
}


def _vae_source(name: str, prefixes: dict[str, str]) -> WeightSource:
    is_matrix = ".attentions." in name and name.endswith("weight") and "group_norm" not in name
    return WeightSource(VAE + _renamed(name, prefixes, _VAE_INNER), squeeze=is_matrix)


def _renamed(name: str, prefixes: dict[str, str], inner: dict[str, dict[str, str]]) -> str:
    """Translate the block's prefix, then the layer's name inside the block."""
    prefix = max((p for p in prefixes if name.startswith(p + ".")), key=len)
    rest = name[len(prefix) + 1 :]
    for kind, renames in inner.items():
        if f".{kind}." in f".{prefix}.":
            layer, _, leaf = rest.rpartition(".")
            rest = f"{renames.get(layer, layer)}.{leaf}"
    return f"{prefixes[prefix]}.{rest}"


_CLIP_OUTER = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm.weight": "ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "ln_pre.bias",
    "vision_model.post_layernorm.weight": "ln_post.weight",
    "vision_model.post_layernorm.bias": "ln_post.bias",
}
_CLIP_INNER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def _clip_source(name: str) -> WeightSource:
    if name == "visual_projection.weight":
        return WeightSource(CLIP + "proj", transpose=True)
    if name in _CLIP_OUTER:
        return WeightSource(CLIP + _CLIP_OUTER[name])
    block, _, rest = name.removeprefix("vision_model.encoder.layers.").partition(".")
    layer, _, leaf = rest.rpartition(".")
    prefix = f"{CLIP}transformer.resblocks.{block}."
    if layer in _CLIP_INNER:
        return WeightSource(f"{prefix}{_CLIP_INNER[layer]}.{leaf}")
    part = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].index(layer)
    return WeightSource(f"{prefix}attn.in_proj_{leaf}", part=part)
