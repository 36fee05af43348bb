"""Makes a frozen Zero123 model faster, or small enough for the machine, with the same results.

Each function states what it costs in exactness; `benchmarks/full_size.py` measures the time and memory it saves.
"""

import threading
from collections.abc import Iterator

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from zero123s.diffusion.model import Zero123Model
from zero123s.ops.convolution import conv3x3
from zero123s.ops.group_norm import group_norm_silu

_scratch = threading.local()


def computes_natively(dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether matrix products in a dtype are native on a device, not emulated value by value.

    Args:
        dtype: of the weights.
        device: which computes.

    Returns:
        True on CUDA, and on a CPU for float32 and the half precisions that oneDNN supports there.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.speed import computes_natively
        >>> computes_natively(torch.float32, torch.device("cpu"))
        True
    """
    if device.type != "cpu" or dtype == torch.float32:
        return True
    # oneDNN's own tests; without them torch is slower than fp32 by more than ten times.
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def float32_weight(weight: Tensor, x: Tensor) -> Tensor:
    """Convert a half precision weight to float32, for one product.

    Where no gradient needs it afterwards it lies in a buffer that the next call overwrites: allocating memory for every
    layer costs seven times as much as the conversion itself.

    Args:
        weight: of any shape and float dtype.
        x: the other factor of the product, on the weight's device.

    Returns:
        The weight in float32, of the same shape.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.speed import float32_weight
        >>> float32_weight(torch.ones(2, dtype=torch.bfloat16), torch.zeros(2))
        tensor([1., 1.])
    """
    if weight.dtype == torch.float32:
        return weight
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return weight.float()
    buffer = getattr(_scratch, "buffer", None)
    if buffer is None or buffer.numel() < weight.numel():
        with torch.inference_mode(False):  # or it could not be written to outside of it
            buffer = _scratch.buffer = torch.empty(weight.numel(), device=weight.device)
    return buffer[: weight.numel()].view(weight.shape).copy_(weight)


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in float32 whatever dtype its weights are stored in; optionally by Winograd's scheme."""

    winograd = False

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = input.float(), float32_weight(weight, input)
        bias = None if bias is None else bias.float()
        if self.winograd:
            return conv3x3(x, weight, bias)
        return super()._conv_forward(x, weight, bias)


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 whatever dtype its weights are stored in."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: of any float dtype, ... C.

        Returns:
            float32, ... K.
        """
        return F.linear(
            input.float(), float32_weight(self.weight, input), None if self.bias is None else self.bias.float()
        )


class Float32GroupNorm(nn.GroupNorm):
    """A group norm that computes in float32 whatever dtype its weights are stored in."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: of any float dtype, B C ...

        Returns:
            float32, of the same shape.
        """
        return F.group_norm(input.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps)


class Float32LayerNorm(nn.LayerNorm):
    """A layer norm that computes in float32 whatever dtype its weights are stored in."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: of any float dtype, ... C.

        Returns:
            float32, of the same shape.
        """
        return F.layer_norm(input.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)


_FLOAT32_LAYERS = {
    nn.Conv2d: Float32Conv2d,
    nn.Linear: Float32Linear,
    nn.GroupNorm: Float32GroupNorm,
    nn.LayerNorm: Float32LayerNorm,
}


def compute_in_float32(component: nn.Module) -> None:
    """Let a component compute in float32 from weights that stay in half precision, layer by layer.

    On a CPU without native half precision this has the memory of bf16 at nearly the speed of fp32, and only the weights
    are rounded.

    Args:
        component: changed in place; its layers must be convolutions, linear layers and norms.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.speed import compute_in_float32
        >>> layer = torch.nn.Sequential(torch.nn.Linear(2, 1)).bfloat16()
        >>> compute_in_float32(layer)
        >>> layer(torch.ones(1, 2)).dtype, layer[0].weight.dtype
        (torch.float32, torch.bfloat16)
    """
    for module in component.modules():
        if type(module) in _FLOAT32_LAYERS:
            module.__class__ = _FLOAT32_LAYERS[type(module)]
    component.compute_dtype = torch.float32  # type: ignore[assignment]


class SingleTokenAttention(AttnProcessor2_0):
    """Cross-attention to a single token: the softmax over one key is 1, so queries and keys need not be computed."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, *args, **kwargs):
        """Return the attention's output; with more than one token, or a mask, as the base class does."""
        if encoder_hidden_states is None or encoder_hidden_states.shape[1] != 1 or args or any(kwargs.values()):
            return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        out = attn.to_out[0](attn.to_v(encoder_hidden_states))  # type: ignore[index]
        return out.expand(-1, hidden_states.shape[1], -1)


class FusedResnetBlock(ResnetBlock2D):
    """A residual block that normalises and activates in one operation; for blocks that `_can_fuse` accepts."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args, **kwargs) -> Tensor:
        """Apply the block.

        Args:
            input_tensor: B C H W.
            temb: B E, the embedded noise level; None in an autoencoder.
            args: of older versions of diffusers, ignored.
            kwargs: the same by name.

        Returns:
            B K H W.
        """
        norm1, norm2 = self.norm1, self.norm2
        h = group_norm_silu(input_tensor, norm1.weight, norm1.bias, norm1.num_groups, norm1.eps)
        shift = None if temb is None or self.time_emb_proj is None else self.time_emb_proj(F.silu(temb))
        h = group_norm_silu(self.conv1(h), norm2.weight, norm2.bias, norm2.num_groups, norm2.eps, shift)
        h = self.conv2(h)
        return h + (input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor))


def _can_fuse(block: nn.Module) -> bool:
    """Return whether a block is what `FusedResnetBlock` computes: that of Zero123's networks."""
    return (
        type(block) is ResnetBlock2D
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.time_embedding_norm in ("default", "group")  # "group" has no time
        and not (block.skip_time_act or block.up or block.down or block.dropout.p)
        and block.output_scale_factor == 1
    )


def speed_up(
    model: Zero123Model, shortcuts: bool = True, channels_last: bool = False, compiled: bool = False
) -> Zero123Model:
    """Prepare a frozen model for many evaluations.

    Args:
        model: changed in place.
        shortcuts: cross-attention to a single token without queries and keys (exact), and on a CPU large 3 x 3
            convolutions by Winograd's scheme (8e-6 of the largest value off, where torch's own are 4e-6 off); on other
            devices norm and activation in one operation, unless they are compiled.
        channels_last: lay images out with the channels last: slower on an H200 (docs/performance.md); on a CPU torch's
            group norm is then less exact (latents 1.5e-5, encoder gradient 3.6e-5 of the largest value off) and nothing
            is gained in fp32.
        compiled: compile denoiser and encoder with torch.compile: minutes at the first call, and a C++ compiler.

    Returns:
        The same model.
    """
    for attention in _cross_attentions(model.unet) if shortcuts else ():
        attention.set_processor(SingleTokenAttention())  # type: ignore[arg-type]
    for component in (model.unet, model.vae):
        if shortcuts and model.device.type != "cpu" and not compiled:
            _fuse_norms(component)
        if shortcuts and model.device.type == "cpu" and _dtype_of(component) == torch.float32:
            _use_winograd(component)
        if channels_last:
            component.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        model.unet.compile()
        model.vae.encoder.compile()
    return model


def _fuse_norms(component: nn.Module) -> None:
    for module in component.modules():
        if _can_fuse(module):
            module.__class__ = FusedResnetBlock


def _use_winograd(component: nn.Module) -> None:
    for module in component.modules():
        if not isinstance(module, nn.Conv2d) or type(module) not in (nn.Conv2d, Float32Conv2d):
            continue
        if module.kernel_size == (3, 3) and module.stride == (1, 1) and module.padding == (1, 1):
            module.__class__ = Float32Conv2d
            module.winograd = True  # type: ignore[assignment]


def _cross_attentions(unet: nn.Module) -> Iterator[Attention]:
    blocks = (getattr(module, "attn2", None) for module in unet.modules())
    return (block for block in blocks if isinstance(block, Attention))


def _dtype_of(component: nn.Module) -> torch.dtype:
    return getattr(component, "compute_dtype", None) or next(component.parameters()).dtype
