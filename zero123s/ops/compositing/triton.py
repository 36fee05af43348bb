"""Compositing on CUDA in Triton: one program per ray, forward along it and back for the gradients."""

# Triton's language is opaque to a type checker.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
import torch
import triton
import triton.language as tl
from torch import Tensor

from zero123s.ops.gpu_kernels import launch

_STEPS = 32
"""Samples of a ray per iteration: one warp."""


@triton.jit
def _multiply(a, b):
    return a * b


@triton.jit
def _chain(a_slope, a_shift, b_slope, b_shift):
    """Compose the maps x -> shift + slope x: `a`, which comes first, and then `b`."""
    return a_slope * b_slope, b_shift + b_slope * a_shift


@triton.jit
def _transmittance(alphas, s, earlier, left):
    """Return the transmittance before the samples `s` of a ray; `left` is that before the block, `earlier` marks samples
    with a predecessor.

    A product over the samples before, not a quotient: behind an opaque sample the transmittance is zero.
    """
    passed = 1.0 - tl.load(alphas + s - 1, mask=earlier, other=0.0)
    return left * tl.associative_scan(passed, 0, _multiply)


@triton.jit
def _last(x, k, STEPS: tl.constexpr):
    """Return the last element of a block."""
    return tl.sum(tl.where(k == STEPS - 1, x, 0.0), 0)


@triton.jit
def _sample(t_starts, t_ends, values, s, inside, c, C: tl.constexpr):
    """Return the middles and values of samples, zeros outside."""
    middle = 0.5 * (tl.load(t_starts + s, mask=inside, other=0.0) + tl.load(t_ends + s, mask=inside, other=0.0))
    there = inside[:, None] & (c < C)[None, :]
    return middle, tl.load(values + s[:, None] * C + c[None, :], mask=there, other=0.0).to(tl.float32)


@triton.jit
def _forward(
    alphas,
    t_starts,
    t_ends,
    info,
    values,
    transmittance,
    weights,
    opacity,
    depth,
    summed,
    eps,
    C: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64)
    first, count, k, c = tl.load(info + 2 * r), tl.load(info + 2 * r + 1), tl.arange(0, STEPS), tl.arange(0, CHANNELS)
    left, covered, distance = 1.0, 0.0, 0.0
    total = tl.zeros((CHANNELS,), tl.float32)
    for base in range(0, count.to(tl.int32), STEPS):
        s, inside = first + base + k, base + k < count
        transmitted = _transmittance(alphas, s, inside & (base + k > 0), left)
        weight = tl.where(transmitted >= eps, transmitted * tl.load(alphas + s, mask=inside, other=0.0), 0.0)
        middle, value = _sample(t_starts, t_ends, values, s, inside, c, C)
        covered += tl.sum(weight, 0)
        distance += tl.sum(weight * middle, 0)
        total += tl.sum(weight[:, None] * value, 0)
        tl.store(transmittance + s, transmitted, mask=inside)
        tl.store(weights + s, weight, mask=inside)
        left = _last(transmitted, k, STEPS)
    tl.store(opacity + r, covered)
    tl.store(depth + r, distance)
    tl.store(summed + r * C + c, total, mask=c < C)


@triton.jit
def _grad_of_weights(
    transmittance,
    t_starts,
    t_ends,
    values,
    grad_weights,
    g_opacity,
    g_depth,
    g_summed,
    s,
    inside,
    c,
    eps,
    C: tl.constexpr,
):
    """Return the gradient with respect to the weights of samples, zero where the transmittance is below `eps`."""
    middle, value = _sample(t_starts, t_ends, values, s, inside, c, C)
    here = tl.load(grad_weights + s, mask=inside, other=0.0) + g_opacity + g_depth * middle
    here += tl.sum(value * g_summed[None, :], 1)
    return tl.where(tl.load(transmittance + s, mask=inside, other=0.0) >= eps, here, 0.0)


@triton.jit
def _backward(
    alphas,
    t_starts,
    t_ends,
    info,
    values,
    transmittance,
    weights,
    grad_weights,
    grad_opacity,
    grad_depth,
    grad_summed,
    grad_alphas,
    grad_values,
    eps,
    C: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Walk back along a ray; `behind` is the gradient with respect to the transmittance after a sample.

    That before a sample of opacity a is a here + (1 - a) behind, where `here` is the gradient with respect to the
    sample's weight: affine maps that a scan from the last sample on composes.
    """
    r = tl.program_id(0).to(tl.int64)
    first, count, k, c = tl.load(info + 2 * r), tl.load(info + 2 * r + 1), tl.arange(0, STEPS), tl.arange(0, CHANNELS)
    g_opacity, g_depth = tl.load(grad_opacity + r), tl.load(grad_depth + r)
    g_summed = tl.load(grad_summed + r * C + c, mask=c < C, other=0.0)
    beyond = 0.0
    for base in range(0, count.to(tl.int32), STEPS):
        s, inside = first + count - 1 - base - k, base + k < count
        here = _grad_of_weights(
            transmittance, t_starts, t_ends, values, grad_weights, g_opacity, g_depth, g_summed, s, inside, c, eps, C
        )
        # A scan includes its own element: lane k takes the map of the sample behind its own, lane 0 none.
        next_s, has_next = s + 1, inside & (k > 0)
        next_grad = _grad_of_weights(
            transmittance,
            t_starts,
            t_ends,
            values,
            grad_weights,
            g_opacity,
            g_depth,
            g_summed,
            next_s,
            has_next,
            c,
            eps,
            C,
        )
        next_alpha = tl.load(alphas + next_s, mask=has_next, other=0.0)
        slope, shift = tl.associative_scan(
            (1.0 - next_alpha, next_alpha * tl.where(has_next, next_grad, 0.0)), 0, _chain
        )
        behind = shift + slope * beyond
        alpha = tl.load(alphas + s, mask=inside, other=0.0)
        transmitted = tl.load(transmittance + s, mask=inside, other=0.0)
        tl.store(grad_alphas + s, transmitted * (here - behind), mask=inside)
        there = inside[:, None] & (c < C)[None, :]
        weight = tl.load(weights + s, mask=inside, other=0.0)
        tl.store(grad_values + s[:, None] * C + c[None, :], weight[:, None] * g_summed[None, :], mask=there)
        beyond = _last(alpha * here + (1.0 - alpha) * behind, k, STEPS)


@triton.jit
def _visibility(alphas, info, visibility, alpha_thre, eps, STEPS: tl.constexpr):
    """Write which samples are at least `alpha_thre` opaque and have a transmittance of at least `eps` before them."""
    r = tl.program_id(0).to(tl.int64)
    first, count, k, left = tl.load(info + 2 * r), tl.load(info + 2 * r + 1), tl.arange(0, STEPS), 1.0
    for base in range(0, count.to(tl.int32), STEPS):
        s, inside = first + base + k, base + k < count
        transmitted = _transmittance(alphas, s, inside & (base + k > 0), left)
        visible = (transmitted >= eps) & (tl.load(alphas + s, mask=inside, other=0.0) >= alpha_thre)
        tl.store(visibility + s, visible.to(tl.int8), mask=inside)
        left = _last(transmitted, k, STEPS)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, alphas, t_starts, t_ends, info, values, eps):
        n_rays, n_channels = len(info), values.shape[1]
        transmittance, weights = torch.empty_like(alphas), torch.empty_like(alphas)
        opacity, depth = alphas.new_empty(n_rays), alphas.new_empty(n_rays)
        summed = alphas.new_empty(n_rays, n_channels)
        ctx.eps, ctx.channels = eps, (n_channels, triton.next_power_of_2(max(n_channels, 1)), _STEPS)
        inputs, outputs = (alphas, t_starts, t_ends, info, values), (transmittance, weights, opacity, depth, summed)
        launch(_forward, (n_rays,), *inputs, *outputs, eps, *ctx.channels, num_warps=1)
        ctx.save_for_backward(*inputs, transmittance, weights)
        return weights, opacity, depth, summed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads):  # type: ignore[override]
        saved = ctx.saved_tensors
        alphas, info, values = saved[0], saved[3], saved[4]
        grad_alphas, grad_values = torch.empty_like(alphas), torch.empty_like(values)
        given = [g.contiguous() for g in grads]
        launch(_backward, (len(info),), *saved, *given, grad_alphas, grad_values, ctx.eps, *ctx.channels, num_warps=1)
        return grad_alphas, None, None, None, grad_values, None


def composite_alpha(
    alphas: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor, values: Tensor, early_stop_eps: float
) -> tuple[Tensor, ...]:
    """Composite float32 opacities, and values of any floating type, as the reference does."""
    inputs = [t.contiguous() for t in (alphas, t_starts, t_ends, packed_info, values)]
    return _Composite.apply(*inputs, float(early_stop_eps))  # type: ignore[return-value]


def visibility_alpha(alphas: Tensor, packed_info: Tensor, alpha_thre: float, early_stop_eps: float) -> Tensor:
    """Return which float32 samples are visible; see `zero123s.ops.compositing.visibility_alpha`."""
    visibility = torch.empty(len(alphas), dtype=torch.int8, device=alphas.device)
    arguments = (alphas.contiguous(), packed_info.contiguous(), visibility, float(alpha_thre), float(early_stop_eps))
    launch(_visibility, (len(packed_info),), *arguments, _STEPS, num_warps=1)
    return visibility.view(torch.bool)
