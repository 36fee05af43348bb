"""Bias-free multilayer perceptron whose hidden layers are recomputed for the gradients instead of kept."""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.errors import ConfigError
from zero123s.ops import backends
from zero123s.ops.mlp import reference
from zero123s.ops.mlp.reference import CHUNK, CHUNKED_ACTIVATIONS, GPU_CHUNK, plain_mlp

__all__ = [
    "CHUNK",
    "CHUNKED_ACTIVATIONS",
    "GPU_CHUNK",
    "mlp_forward",
    "mlp_gradients",
    "mlp_input_gradient",
    "mlp_input_gradient_by_weights",
    "plain_mlp",
]


def mlp_forward(
    x: Float[Tensor, "N I"],
    weights: list[Tensor],
    activation: str = "relu",
    chunk: int | None = None,
    precision: str = "fp32",
    backend: str = "auto",
) -> Float[Tensor, "N O"]:
    """Apply a multilayer perceptron without biases, and recompute its hidden layers for the gradients.

    A backward pass with `create_graph=True` differentiates plain torch operations instead, so the result is
    differentiable any number of times in fp32.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last: H I, H H, ..., O H.
        activation: "relu" or "softplus", between the layers; none after the last.
        chunk: rows of `x` that the reference computes together; None = as many as suit the device.
        precision: of the reference's products: "fp32" (the tensors' own type) or "bf16"; gradients are summed in the
            weights' type.
        backend: "auto", "reference" or "triton" (CUDA, two or three layers of at most 64); "auto" compares Triton's
            kernels with plain torch before their first use.

    Returns:
        N O, of the type of `x`, or of autocast's where that is on.

    Raises:
        ConfigError: another activation, precision or backend, or layers for which the named backend is not written.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.mlp import mlp_forward
        >>> x, weights = torch.tensor([[1.0, -2.0]]), [torch.eye(2), torch.ones(1, 2)]
        >>> mlp_forward(x, weights).tolist()  # relu(1) + relu(-2)
        [[1.0]]
    """
    if activation not in CHUNKED_ACTIVATIONS:
        known = ", ".join(CHUNKED_ACTIVATIONS)
        raise ConfigError(f"The chunked MLP has no activation '{activation}'; choose {known}.")
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"Unknown MLP precision '{precision}'; choose fp32 or bf16.")
    if _backend(x, weights, backend, activation, precision == "fp32") == "triton":
        from zero123s.ops.mlp import triton

        return triton.mlp_forward(x, weights, activation, _compute_type(x))
    if torch.is_autocast_enabled(x.device.type):  # which the chunks do not support
        return plain_mlp(x, weights, activation)
    return reference.mlp_forward(x, weights, activation, chunk, precision)


def mlp_input_gradient(
    x: Float[Tensor, "N I"],
    weights: list[Tensor],
    activation: str = "relu",
    chunk: int | None = None,
    backend: str = "auto",
) -> Float[Tensor, "N I"]:
    """Return the gradient of a one-output network with respect to its input, differentiable in `weights`.

    With "relu" it depends on `x` only through jumps, and is not differentiated in it; with another activation it is.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last: H I, H H, ..., 1 H.
        activation: between the layers.
        chunk: rows of `x` that the reference computes together; None = as many as suit the device.
        backend: "auto", "reference" or "triton" (CUDA, "relu", two or three layers of at most 64).

    Returns:
        N I.

    Raises:
        ConfigError: another backend, or layers for which the named backend is not written.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.mlp import mlp_input_gradient
        >>> x, weights = torch.tensor([[1.0, -2.0]]), [torch.eye(2), torch.tensor([[3.0, 5.0]])]
        >>> mlp_input_gradient(x, weights).tolist()  # the second unit is off
        [[3.0, 0.0]]
    """
    # Softplus has a second derivative by the input as well, which only the reference computes.
    if activation == "relu" and _backend(x, weights, backend, "input gradient") == "triton":
        from zero123s.ops.mlp import triton

        return triton.relu_input_gradient(x, weights, _compute_type(x))
    return reference.mlp_input_gradient(x, weights, activation, chunk)


def mlp_gradients(
    x: Float[Tensor, "N I"], weights: list[Tensor], grad: Float[Tensor, "N O"], activation: str = "relu"
) -> tuple[Float[Tensor, "N I"], list[Tensor]]:
    """Return the gradients of `(grad * mlp_forward(x)).sum()`, for an autograd function that contains the network.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last: H I, H H, ..., O H.
        grad: N O, the gradient by the output.
        activation: "relu" or "softplus", between the layers.

    Returns:
        The gradient of `x` N I, and of each matrix; not differentiable.

    Example:
        >>> import torch
        >>> from zero123s.ops.mlp import mlp_gradients
        >>> x, weights = torch.tensor([[1.0, -2.0]]), [torch.eye(2), torch.tensor([[3.0, 5.0]])]
        >>> grad_x, (first, last) = mlp_gradients(x, weights, torch.ones(1, 1))
        >>> grad_x.tolist(), last.tolist()  # the second unit is off
        ([[3.0, 0.0]], [[1.0, 0.0]])
    """
    with torch.no_grad():
        if _backend(x, weights, "auto", activation) == "triton":
            from zero123s.ops.mlp import triton

            grads = triton.gradients(x, weights, activation, x.dtype, grad, True)
        else:
            grads = reference.chunked_gradients(x, weights, activation, None, "fp32", grad, True)
    return grads[0], grads[1:]  # type: ignore[return-value]


def mlp_input_gradient_by_weights(
    x: Float[Tensor, "N I"], weights: list[Tensor], v: Float[Tensor, "N I"]
) -> list[Tensor]:
    """Return the gradients of `(v * mlp_input_gradient(x)).sum()` with respect to the matrices of a ReLU network.

    Args:
        x: N I, the input.
        weights: matrices of the layers, first to last: H I, H H, ..., 1 H.
        v: N I, the gradient by the input gradient.

    Returns:
        The gradient of each matrix; not differentiable.

    Example:
        >>> import torch
        >>> from zero123s.ops.mlp import mlp_input_gradient_by_weights
        >>> x, weights = torch.tensor([[1.0, -2.0]]), [torch.eye(2), torch.tensor([[3.0, 5.0]])]
        >>> first, last = mlp_input_gradient_by_weights(x, weights, torch.tensor([[1.0, 10.0]]))
        >>> first.tolist(), last.tolist()  # the second unit is off
        ([[3.0, 30.0], [0.0, 0.0]], [[1.0, 0.0]])
    """
    with torch.no_grad():
        if _backend(x, weights, "auto", "input gradient") == "triton":
            from zero123s.ops.mlp import triton

            return triton.relu_input_gradient_by_weights(x, weights, v, x.dtype)
        return reference.relu_input_gradient_by_weights(x, weights, v, None)


def _compute_type(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _backend(x: Tensor, weights: list[Tensor], backend: str, kernels: str, fits: bool = True) -> str:
    """Return the backend; "auto" takes the reference where the kernels are not written for these layers, or fail.

    `kernels` is as in `agreement.kernels_agree`.
    """
    fits = fits and _kernels_fit(x, weights)
    chosen = backends.resolve("mlp", "reference" if backend == "auto" and not fits else backend, x.device)
    if chosen == "triton" and not fits:
        raise ConfigError(
            "Backend 'triton' of mlp takes N C and two or three layers of at most 64, in 16 or 32 bits; use backend: auto."
        )
    if chosen == "triton" and backend == "auto":
        from zero123s.ops.mlp.agreement import kernels_agree

        widths = (x.shape[1], *(len(w) for w in weights))
        dtypes = x.dtype, weights[0].dtype, _compute_type(x)
        tf32 = torch.get_float32_matmul_precision() != "highest"
        if not kernels_agree(kernels, x.device, widths, dtypes, x.stride(1) != 1, tf32):
            return "reference"
    return chosen


def _kernels_fit(x: Tensor, weights: list[Tensor]) -> bool:
    """Return whether Triton's kernels are written for this input and these layers."""
    widths = [x.shape[-1], *(len(w) for w in weights)]
    types = (torch.float32, torch.float16, torch.bfloat16)
    same_hidden = len(weights) == 2 or (len(weights) == 3 and widths[1] == widths[2])
    # They count numbers in 32 bits.
    return x.dim() == 2 and x.dtype in types and same_hidden and max(widths) <= 64 and x.numel() < 1 << 31
