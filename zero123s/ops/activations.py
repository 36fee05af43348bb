"""Activations by name, and the truncated exponential."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zero123s.errors import ConfigError
from zero123s.registry import nearest

Activation = Callable[[Tensor], Tensor]


class _TruncExp(torch.autograd.Function):
    """exp whose gradient is clamped, so that one large pre-activation cannot blow up a step (Instant-NGP)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * torch.exp(x.clamp(max=15.0))


def trunc_exp(x: Tensor) -> Tensor:
    """Return exp(x) with the gradient of exp(min(x, 15)), which keeps one large input from ruining a step (Instant-
    NGP).

    Args:
        x: any shape; pre-activations.

    Returns:
        exp(x), of the shape of `x`; differentiable twice.

    Example:
        >>> import torch
        >>> from zero123s.ops.activations import trunc_exp
        >>> x = torch.tensor([0.0, 20.0], requires_grad=True)
        >>> trunc_exp(x).sum().backward()
        >>> x.grad.log().tolist()
        [0.0, 15.0]
    """
    return _TruncExp.apply(x)  # type: ignore[return-value]


ACTIVATIONS: dict[str, Activation] = {
    "none": lambda x: x,
    "relu": F.relu,
    "softplus": F.softplus,
    "exp": torch.exp,
    "trunc_exp": trunc_exp,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "scale_-11_01": lambda x: 0.5 * x + 0.5,
    "sin": torch.sin,
}


def get_activation(name: str | None) -> Activation:
    """Return the activation of a name, as used in configuration files.

    Args:
        name: a key of `ACTIVATIONS` in upper or lower case; None means "none".

    Returns:
        A function that is applied element by element.

    Raises:
        ConfigError: there is no activation of this name.

    Example:
        >>> import torch
        >>> from zero123s.ops.activations import get_activation
        >>> get_activation("ReLU")(torch.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
        >>> get_activation("relo")
        Traceback (most recent call last):
        zero123s.errors.ConfigError: Unknown activation 'relo'. Did you mean 'relu'? Known: none, relu, softplus, ...
    """
    key = "none" if name is None else name.lower()
    if key not in ACTIVATIONS:
        raise ConfigError(
            f"Unknown activation '{name}'.{nearest(key, list(ACTIVATIONS))} Known: {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[key]
