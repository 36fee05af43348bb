"""Unit vectors in plain torch."""

import torch
from jaxtyping import Float
from torch import Tensor


def unit(v: Float[Tensor, "*N 3"], eps: float) -> Float[Tensor, "*N 3"]:
    """Scale vectors to unit length; see `zero123s.ops.vectors.unit`.

    Args:
        v: any leading shape and 3, vectors.
        eps: smallest length that is divided by.

    Returns:
        Of the shape of `v`.
    """
    return _Unit.apply(v, eps)  # type: ignore[return-value]


class _Unit(torch.autograd.Function):
    """Backward by its closed form: a third of the operations that autograd would need."""

    @staticmethod
    def forward(ctx, v: Tensor, eps: float) -> Tensor:
        squared = (v * v).sum(-1, keepdim=True)
        inverse = squared.clamp_min(eps**2).rsqrt_()
        out = v * inverse
        ctx.eps = eps
        ctx.save_for_backward(out, inverse)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        out, inverse = ctx.saved_tensors
        along = (grad * out).sum(-1, keepdim=True)
        # A shorter vector than `eps` is divided by a constant.
        along.mul_(inverse < 1 / ctx.eps)
        return torch.addcmul(grad, out, along, value=-1).mul_(inverse), None
