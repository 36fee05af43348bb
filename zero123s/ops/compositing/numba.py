"""Compositing on the CPU: one pass along each ray forward, one back for the gradients."""

# numba's decorators and scalar types are opaque to a type checker.
# pyright: reportCallIssue=false, reportArgumentType=false
import numpy as np
import torch
from numba import njit
from torch import Tensor

from zero123s.ops.kernels import launch

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@njit(cache=True, nogil=True)
def _forward(
    part, n_parts, alphas, t_starts, t_ends, info, values, eps, transmittance, weights, opacity, depth, summed
):
    for r in range(part, info.shape[0], n_parts):
        left, covered, distance = _ONE, _ZERO, _ZERO
        for s in range(info[r, 0], info[r, 0] + info[r, 1]):
            transmittance[s] = left
            weight = left * alphas[s] if left >= eps else _ZERO
            weights[s] = weight
            covered += weight
            distance += weight * _HALF * (t_starts[s] + t_ends[s])
            for c in range(values.shape[1]):
                summed[r, c] += weight * values[s, c]
            left *= _ONE - alphas[s]
        opacity[r], depth[r] = covered, distance


@njit(cache=True, nogil=True)
def _backward(
    part, n_parts, alphas, t_starts, t_ends, info, values, eps, transmittance, weights, grads, grad_alphas, grad_values
):
    """Walk back along each ray; `behind` is the gradient with respect to the light that passes a sample."""
    grad_weights, grad_opacity, grad_depth, grad_summed = grads
    for r in range(part, info.shape[0], n_parts):
        behind = _ZERO
        for s in range(info[r, 0] + info[r, 1] - 1, info[r, 0] - 1, -1):
            here = grad_weights[s] + grad_opacity[r] + grad_depth[r] * _HALF * (t_starts[s] + t_ends[s])
            for c in range(values.shape[1]):
                here += grad_summed[r, c] * values[s, c]
                grad_values[s, c] = weights[s] * grad_summed[r, c]
            reached = transmittance[s] >= eps
            if not reached:
                here = _ZERO
            grad_alphas[s] = transmittance[s] * (here - behind)
            behind = alphas[s] * here + (_ONE - alphas[s]) * behind


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, alphas, t_starts, t_ends, info, values, eps):
        transmittance, weights = torch.empty_like(alphas), torch.empty_like(alphas)
        opacity, depth = alphas.new_empty(len(info)), alphas.new_empty(len(info))
        summed = alphas.new_zeros(len(info), values.shape[1])
        launch(
            _forward,
            *(alphas, t_starts, t_ends, info, values, np.float32(eps)),
            *(transmittance, weights, opacity, depth, summed),
        )
        ctx.eps = eps
        ctx.save_for_backward(alphas, t_starts, t_ends, info, values, transmittance, weights)
        return weights, opacity, depth, summed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads):  # type: ignore[override]
        alphas, t_starts, t_ends, info, values, transmittance, weights = ctx.saved_tensors
        grad_alphas, grad_values = torch.empty_like(alphas), torch.empty_like(values)
        arrays = tuple(g.detach().contiguous().numpy() for g in grads)
        launch(
            _backward,
            *(alphas, t_starts, t_ends, info, values, np.float32(ctx.eps)),
            *(transmittance, weights, arrays, grad_alphas, grad_values),
        )
        return grad_alphas, None, None, None, grad_values, None


def composite_alpha(
    alphas: Tensor, t_starts: Tensor, t_ends: Tensor, packed_info: Tensor, values: Tensor, early_stop_eps: float
) -> tuple[Tensor, ...]:
    """Composite float32 CPU samples as the reference does."""
    inputs = [t.contiguous() for t in (alphas, t_starts, t_ends, packed_info, values)]
    return _Composite.apply(*inputs, early_stop_eps)  # type: ignore[return-value]
