"""Group norm and SiLU on CUDA in Triton: one program for each image and group, whose channels lie one after the other."""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from zero123s.ops.gpu_kernels import launch

_BLOCK = 4096
"""Numbers of a group that are read at once."""
_WARPS = 16


@triton.jit
def _inputs(x, shift, g, k, per_group, pixels, SHIFTED: tl.constexpr):
    """Return numbers of a group in float32, 0 behind its end."""
    n = per_group * pixels
    value = tl.load(x + g * n + k, mask=k < n, other=0.0).to(tl.float32)
    if SHIFTED:
        value += tl.load(shift + g * per_group + k // pixels, mask=k < n, other=0.0).to(tl.float32)
    return value


@triton.jit
def _parameters(weight, bias, g, k, n_groups, per_group, pixels):
    """Return weight and bias of the numbers' channels."""
    channel, inside = g % n_groups * per_group + k // pixels, k < per_group * pixels
    w = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    return w, tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _normalize(
    x,
    weight,
    bias,
    shift,
    out,
    means,
    scales,
    n_groups,
    per_group,
    pixels,
    eps,
    SHIFTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Normalise and activate a group; keep its mean and 1 / standard deviation.

    Each lane takes mean and squared deviations of its numbers in one pass (Welford 1962), which are then combined.
    """
    g, n, lane = tl.program_id(0).to(tl.int64), per_group * pixels, tl.arange(0, BLOCK)
    lane_mean, lane_squares, read = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), 0.0
    for base in range(0, n, BLOCK):
        k = base + lane
        value = _inputs(x, shift, g, k, per_group, pixels, SHIFTED)
        difference = tl.where(k < n, value - lane_mean, 0.0)
        read += 1.0
        lane_mean += difference / read
        lane_squares += difference * (value - lane_mean)
    count = tl.maximum((n - lane + BLOCK - 1) // BLOCK, 0).to(tl.float32)
    mean = tl.sum(count * lane_mean, 0) / n
    deviation = lane_mean - mean
    scale = 1.0 / tl.sqrt(tl.sum(lane_squares + count * deviation * deviation, 0) / n + eps)
    tl.store(means + g, mean)
    tl.store(scales + g, scale)
    for base in range(0, n, BLOCK):
        k = base + lane
        w, b = _parameters(weight, bias, g, k, n_groups, per_group, pixels)
        y = (_inputs(x, shift, g, k, per_group, pixels, SHIFTED) - mean) * scale * w + b
        tl.store(out + g * n + k, y * tl.sigmoid(y), mask=k < n)


@triton.jit
def _input_gradient(
    x,
    weight,
    bias,
    shift,
    grad,
    out,
    means,
    scales,
    n_groups,
    per_group,
    pixels,
    SHIFTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradient by a group's input: scale (v - mean(v) - z mean(v z)), v that by the normalised input z."""
    g, n, lane = tl.program_id(0).to(tl.int64), per_group * pixels, tl.arange(0, BLOCK)
    mean, scale = tl.load(means + g), tl.load(scales + g)
    sums, products = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for base in range(0, n, BLOCK):
        k = base + lane
        w, b = _parameters(weight, bias, g, k, n_groups, per_group, pixels)
        z = (_inputs(x, shift, g, k, per_group, pixels, SHIFTED) - mean) * scale
        v = _by_normalized(tl.load(grad + g * n + k, mask=k < n, other=0.0).to(tl.float32), z, w, b)
        sums += v
        products += v * z
    mean_v, mean_vz = tl.sum(sums, 0) / n, tl.sum(products, 0) / n
    for base in range(0, n, BLOCK):
        k = base + lane
        w, b = _parameters(weight, bias, g, k, n_groups, per_group, pixels)
        z = (_inputs(x, shift, g, k, per_group, pixels, SHIFTED) - mean) * scale
        v = _by_normalized(tl.load(grad + g * n + k, mask=k < n, other=0.0).to(tl.float32), z, w, b)
        tl.store(out + g * n + k, scale * (v - mean_v - z * mean_vz), mask=k < n)


@triton.jit
def _by_normalized(grad, z, w, b):
    """Return the gradient by the normalised input."""
    y = z * w + b
    s = tl.sigmoid(y)
    return grad * s * (1.0 + y * (1.0 - s)) * w


class _GroupNormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, n_groups, eps, shift):
        batch, channels, height, width = x.shape
        x, shift = x.contiguous(), None if shift is None else shift.contiguous()
        out = torch.empty_like(x)
        statistics = [torch.empty(batch * n_groups, dtype=torch.float32, device=x.device) for _ in range(2)]
        sizes = n_groups, channels // n_groups, height * width
        inputs = x, weight, bias, x if shift is None else shift
        constants = shift is not None, _BLOCK
        launch(_normalize, (batch * n_groups,), *inputs, out, *statistics, *sizes, eps, *constants, num_warps=_WARPS)
        ctx.save_for_backward(*inputs, *statistics)
        ctx.sizes, ctx.constants = sizes, constants
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        *inputs, means, scales = ctx.saved_tensors
        grad = grads[0].contiguous()
        out = torch.empty_like(inputs[0])
        grid = (len(means),)
        launch(_input_gradient, grid, *inputs, grad, out, means, scales, *ctx.sizes, *ctx.constants, num_warps=_WARPS)
        return out, None, None, None, None, None


def group_norm_silu(x: Tensor, weight: Tensor, bias: Tensor, n_groups: int, eps: float, shift: Tensor | None) -> Tensor:
    """Return silu(group_norm(x + shift)), differentiable in `x`."""
    return _GroupNormSilu.apply(x, weight, bias, n_groups, eps, shift)
