"""The layers as plain torch, in chunks that recompute their hidden layers, so that they stay in the cache."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.ops.activations import get_activation

_GRADIENTS = {
    "relu": lambda grad, h: torch.ops.aten.threshold_backward(grad, h, 0),
    "softplus": lambda grad, h: grad * -torch.expm1(-h),
}
"""The gradient before an activation, from the one behind it and the activation's own output."""
CHUNK, GPU_CHUNK = 4096, 1 << 16
"""Points whose hidden layers stay in the cache together: of a CPU's core, and of a GPU (17 MB per layer of 64)."""
CHUNKED_ACTIVATIONS = tuple(_GRADIENTS)


def mlp_forward(
    x: Float[Tensor, "N I"], weights: list[Tensor], activation: str, chunk: int | None, precision: str
) -> Float[Tensor, "N O"]:
    """Apply the layers in chunks; see `zero123s.ops.mlp.mlp_forward`.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last.
        activation: "relu" or "softplus", between the layers.
        chunk: rows of `x` that are computed together; None = as many as suit the device.
        precision: of the products, "fp32" (the tensors' own type) or "bf16".

    Returns:
        N O, of the type of `x`.
    """
    return _ChunkedMLP.apply(activation, chunk or _chunk_of(x), precision, x, *weights)  # type: ignore[return-value]


def _chunk_of(x: Tensor) -> int:
    return CHUNK if x.device.type == "cpu" else GPU_CHUNK


def plain_mlp(x: Float[Tensor, "N I"], weights: list[Tensor], activation: str) -> Float[Tensor, "N O"]:
    """Apply the layers of `mlp_forward` with plain torch operations: its definition, differentiable any number of
    times.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last.
        activation: between the layers, as in `activations.get_activation`.

    Returns:
        N O.

    Raises:
        ConfigError: an unknown activation.
    """
    function = get_activation(activation)
    for weight in weights[:-1]:
        x = function(F.linear(x, weight))
    return F.linear(x, weights[-1])


class _ChunkedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, activation: str, chunk: int, precision: str, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.options = activation, chunk, precision
        cast = torch.bfloat16 if precision == "bf16" else x.dtype
        layers = [w.to(cast) for w in weights]
        y = x.new_empty(x.shape[0], weights[-1].shape[0])
        for start in range(0, x.shape[0], chunk):
            part = slice(start, start + chunk)
            _multiply(_inputs(x[part].to(cast), layers, activation)[-1], layers[-1].T, y[part])
        return y

    @staticmethod
    def backward(ctx, grad_y: Tensor) -> tuple:  # type: ignore[override]
        x, *weights = ctx.saved_tensors
        activation, chunk, precision = ctx.options
        if torch.is_grad_enabled():
            grads = plain_gradients(x, weights, activation, grad_y)
        else:
            grads = chunked_gradients(x, weights, activation, chunk, precision, grad_y, x.requires_grad)
        return (None, None, None, *grads)


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write a @ b to `out`, which may be stored column by column: a product of its own would be copied, transposed."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def _inputs(x: Tensor, layers: list[Tensor], activation: str) -> list[Tensor]:
    """Return the input of each layer; ReLU overwrites, because a second copy would not stay in the cache."""
    function = torch.relu_ if activation == "relu" else get_activation(activation)
    inputs = [x]
    for layer in layers[:-1]:
        inputs.append(function(F.linear(inputs[-1], layer)))
    return inputs


def plain_gradients(
    x: Tensor, weights: list[Tensor], activation: str, grad_y: Tensor, compute: torch.dtype | None = None
) -> list[Tensor | None]:
    """Return the gradients as a graph that can be differentiated again.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last.
        activation: "relu" or "softplus", between the layers.
        grad_y: N O, the gradient by the output.
        compute: type of the products; None = that of the tensors.

    Returns:
        The gradients of `x` and of each matrix, None for those that require none.
    """
    inputs = [x, *weights]
    leaves = [t for t in inputs if t.requires_grad]
    y = plain_mlp(x.to(compute or x.dtype), [w.to(compute or w.dtype) for w in weights], activation)
    found = iter(torch.autograd.grad(y, leaves, grad_y, create_graph=True, allow_unused=True))
    return [next(found) if t.requires_grad else None for t in inputs]


def chunked_gradients(
    x: Tensor,
    weights: list[Tensor],
    activation: str,
    chunk: int | None,
    precision: str,
    grad_y: Tensor,
    wants_x: bool,
) -> list[Tensor | None]:
    """Return the gradients of x and weights, recomputing one chunk's hidden layers at a time.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last.
        activation: "relu" or "softplus", between the layers.
        chunk: rows of `x` that are computed together; None = as many as suit the device.
        precision: of the products, "fp32" (the tensors' own type) or "bf16".
        grad_y: N O, the gradient by the output.
        wants_x: whether to return the gradient of `x`; otherwise None stands in its place.

    Returns:
        The gradients of `x` and of each matrix.
    """
    chunk = chunk or _chunk_of(x)
    cast = torch.bfloat16 if precision == "bf16" else x.dtype
    layers = [w.to(cast) for w in weights]
    derivative = _GRADIENTS[activation]
    grad_x = torch.empty_like(x) if wants_x else None
    grad_w = [torch.zeros_like(w) for w in weights]
    for start in range(0, x.shape[0], chunk):
        part = slice(start, start + chunk)
        inputs = _inputs(x[part].to(cast), layers, activation)
        grad = grad_y[part].to(cast)
        for index in range(len(layers) - 1, -1, -1):
            grad_w[index] += grad.T @ inputs[index]
            if index > 0:
                grad = derivative(grad @ layers[index], inputs[index])
            elif grad_x is not None:
                _multiply(grad, layers[0], grad_x[part])
    return [grad_x, *grad_w]


def mlp_input_gradient(
    x: Float[Tensor, "N I"], weights: list[Tensor], activation: str, chunk: int | None
) -> Float[Tensor, "N I"]:
    """Return the gradient of the only output by the input; see `zero123s.ops.mlp.mlp_input_gradient`.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last.
        activation: between the layers; with "relu" the result is differentiable in `weights` alone.
        chunk: rows of `x` that are computed together; None = as many as suit the device.

    Returns:
        N I.
    """
    if activation == "relu":
        return _ReluInputGradient.apply(chunk or _chunk_of(x), x, *weights)  # type: ignore[return-value]
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_()
        y = plain_mlp(leaf, weights, activation)
        return torch.autograd.grad(y.sum(), leaf, create_graph=keep_graph)[0]


class _ReluInputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, chunk: int, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.chunk = chunk
        out, first = torch.empty_like(x), weights[0]
        for start in range(0, x.shape[0], chunk):
            part = slice(start, start + chunk)
            if len(weights) > 1:
                _multiply(_relu_chain(x[part], weights)[1][0], first, out[part])
            else:
                out[part] = first
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v: Tensor) -> tuple:  # type: ignore[override]
        x, *weights = ctx.saved_tensors
        return (None, None, *relu_input_gradient_by_weights(x, weights, v, ctx.chunk))


def relu_input_gradient_by_weights(
    x: Float[Tensor, "N I"], weights: list[Tensor], v: Float[Tensor, "N I"], chunk: int | None
) -> list[Tensor]:
    """Return the gradients of `(v * mlp_input_gradient(x)).sum()` with respect to the matrices, with ReLU.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last.
        v: N I, the gradient by the input gradient.
        chunk: rows of `x` that are computed together; None = as many as suit the device.

    Returns:
        The gradient of each matrix.
    """
    chunk = chunk or _chunk_of(x)
    grad_w = [torch.zeros_like(w) for w in weights]
    for start in range(0, x.shape[0], chunk):
        part = slice(start, start + chunk)
        hidden, gradients = _relu_chain(x[part], weights)
        along = v[part]  # the derivative of each layer's input along v
        for index, weight in enumerate(weights[:-1]):
            grad_w[index] += gradients[index].T @ along
            along = _GRADIENTS["relu"](along @ weight.T, hidden[index])
        grad_w[-1] += along.sum(0)
    return grad_w


def _relu_chain(x: Tensor, weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs of the hidden layers, and the gradient of the network's output before each of their ReLUs."""
    hidden = []
    for weight in weights[:-1]:
        hidden.append(torch.relu_(F.linear(hidden[-1] if hidden else x, weight)))
    gradients: list[Tensor] = []
    for index in range(len(hidden) - 1, -1, -1):
        behind = gradients[0] @ weights[index + 1] if gradients else weights[-1].expand(len(x), -1)
        gradients.insert(0, _GRADIENTS["relu"](behind, hidden[index]))
    return hidden, gradients
