"""Vectors as the last axis of a tensor."""

import torch
from jaxtyping import Float
from torch import Tensor


def unit(v: Float[Tensor, "*N 3"], eps: float = 1e-12) -> Float[Tensor, "*N 3"]:
    """Return vectors scaled to unit length, v divided by the larger of its length and `eps`.

    `torch.nn.functional.normalize` does the same, with a norm that is many times slower over three numbers.
    Differentiable once.

    Args:
        v: any leading shape and 3, vectors.
        eps: smallest length that is divided by.

    Returns:
        Of the shape of `v`; zero vectors stay zero.

    Example:
        >>> import torch
        >>> from zero123s.ops.vectors import unit
        >>> unit(torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]))
        tensor([[0.6000, 0.0000, 0.8000],
                [0.0000, 0.0000, 0.0000]])
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
