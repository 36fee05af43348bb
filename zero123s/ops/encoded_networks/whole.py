"""The networks on a GPU, by the functions of `ops/mlp`: fused kernels, or plain torch where those do not fit.

Features are stored axis by axis (C N), as the encoding's kernels read and write them.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from zero123s.ops.mlp import mlp_forward, mlp_gradients, mlp_input_gradient, mlp_input_gradient_by_weights


def evaluate(
    encoded: Float[Tensor, "C N"],
    n_values: int,
    value_net: Sequence[Tensor],
    feature_net: Sequence[Tensor],
    gradient: bool,
) -> tuple[Float[Tensor, "M"], Float[Tensor, "K M"] | None, Float[Tensor, "C N"] | None]:
    """Return the value and the features of the first points, and the value's gradient by the encoding of all.

    Args:
        encoded: C N, the encoding of the points.
        n_values: M, the points with value and features.
        value_net: matrices of the network with one output.
        feature_net: matrices of the network with K outputs; none = no features.
        gradient: whether to return the gradient.

    Returns:
        Value M; features K M or None; gradient C N or None.
    """
    x = encoded.t()
    value = mlp_forward(x[:n_values], list(value_net))[:, 0]
    features = mlp_forward(x[:n_values], list(feature_net)).t() if feature_net else None
    return value, features, _encoding_gradient(encoded, value_net) if gradient else None


def gradients(
    encoded: Float[Tensor, "C N"],
    tangent: Float[Tensor, "C T"],
    encoding_gradient: Float[Tensor, "C N"] | None,
    grad_features: Float[Tensor, "K M"] | None,
    value_net: Sequence[Tensor],
    feature_net: Sequence[Tensor],
) -> tuple[Float[Tensor, "C N"], Float[Tensor, "C M"] | None, list[Tensor]]:
    """Return the gradients of weights and encoding.

    Args:
        encoded: C N, the encoding of the points.
        tangent: C T, of the first T points the gradient by the value's gradient, with which that of the value is summed.
        encoding_gradient: the value's gradient by the encoding; None = computed again.
        grad_features: K M, the gradient by the features of the first M points; None without a feature network.
        value_net: matrices of the network with one output.
        feature_net: matrices of the network with K outputs; none = no features.

    Returns:
        The value's gradient by the encoding; the gradient by the encoding as the features' input, or None; the gradients
        of the matrices of both networks.
    """
    x = encoded.t()
    if encoding_gradient is None:
        encoding_gradient = _encoding_gradient(encoded, value_net)
    grads = mlp_input_gradient_by_weights(x[: tangent.shape[1]], list(value_net), tangent.t())
    if grad_features is None:
        return encoding_gradient, None, grads
    grad_x, of_features = mlp_gradients(x[: grad_features.shape[1]], list(feature_net), grad_features.t())
    return encoding_gradient, grad_x.t().contiguous(), [*grads, *of_features]


def _encoding_gradient(encoded: Float[Tensor, "C N"], value_net: Sequence[Tensor]) -> Float[Tensor, "C N"]:
    return mlp_input_gradient(encoded.t(), list(value_net)).t().contiguous()
