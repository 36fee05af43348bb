"""The networks on a CPU, in chunks that stay in the cache: each hidden layer is computed once for all that needs it.

Features are stored axis by axis (C N), as the encoding's kernels read and write them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 4096
"""Points whose hidden layers stay in the cache together."""


def evaluate(
    encoded: Float[Tensor, "C N"],
    n_values: int,
    value_net: Sequence[Tensor],
    feature_net: Sequence[Tensor],
    gradient: bool,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "K N"] | None, Float[Tensor, "C N"] | None]:
    """Return the value, the features and the value's gradient by the encoding.

    Args:
        encoded: C N, the encoding of the points.
        n_values: N.
        value_net: matrices of the network with one output.
        feature_net: matrices of the network with K outputs; none = no features.
        gradient: whether to return the gradient.

    Returns:
        Value N; features K N or None; gradient C N or None.
    """
    n = encoded.shape[1]
    assert n_values == n, "on a CPU all points have a value"
    value = encoded.new_empty(1, n)
    features = encoded.new_empty(len(feature_net[-1]), n) if feature_net else None
    encoding_gradient = torch.empty_like(encoded) if gradient else None
    for part in _chunks(n):
        hidden = _hidden(encoded[:, part], value_net)
        torch.mm(value_net[-1], hidden[-1], out=value[:, part])
        if encoding_gradient is not None:
            torch.mm(value_net[0].t(), _slopes(hidden, value_net)[0], out=encoding_gradient[:, part])
        if features is not None:
            torch.mm(feature_net[-1], _hidden(encoded[:, part], feature_net)[-1], out=features[:, part])
    return value[0], features, encoding_gradient


def gradients(
    encoded: Float[Tensor, "C N"],
    tangent: Float[Tensor, "C N"],
    encoding_gradient: Float[Tensor, "C N"] | None,
    grad_features: Float[Tensor, "K N"] | None,
    value_net: Sequence[Tensor],
    feature_net: Sequence[Tensor],
) -> tuple[Float[Tensor, "C N"], Float[Tensor, "C N"] | None, list[Tensor]]:
    """Return the gradients of weights and encoding.

    Args:
        encoded: C N, the encoding of the points.
        tangent: C N, the gradient by the value's gradient, with which that of the value is summed.
        encoding_gradient: the value's gradient by the encoding; None = computed again.
        grad_features: K N, the gradient by the features; None without a feature network.
        value_net: matrices of the network with one output.
        feature_net: matrices of the network with K outputs; none = no features.

    Returns:
        The value's gradient by the encoding; the gradient by the encoding as the features' input, or None; the gradients
        of the matrices of both networks.
    """
    n_value, kept = len(value_net), encoding_gradient is not None
    if encoding_gradient is None:
        encoding_gradient = torch.empty_like(encoded)
    grad_encoded = torch.empty_like(encoded) if feature_net else None
    grads = [torch.zeros_like(w) for w in (*value_net, *feature_net)]
    for part in _chunks(encoded.shape[1]):
        hidden = _hidden(encoded[:, part], value_net)
        slopes = _slopes(hidden, value_net)
        if not kept:
            torch.mm(value_net[0].t(), slopes[0], out=encoding_gradient[:, part])
        _add_value_gradients(grads[:n_value], value_net, hidden, slopes, tangent[:, part])
        if grad_encoded is not None:
            assert grad_features is not None
            by_features = _add_feature_gradients(grads[n_value:], feature_net, encoded[:, part], grad_features[:, part])
            torch.mm(feature_net[0].t(), by_features, out=grad_encoded[:, part])
    return encoding_gradient, grad_encoded, grads


def _chunks(n: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def _hidden(encoded: Tensor, network: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs of the hidden layers, H n."""
    hidden = []
    for weight in network[:-1]:
        hidden.append(torch.mm(weight, hidden[-1] if hidden else encoded).relu_())
    return hidden


def _slopes(hidden: list[Tensor], network: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of the only output by each hidden layer before its ReLU, H n."""
    slopes = [torch.sign(hidden[-1]).mul_(network[-1].t())]
    for index in range(len(hidden) - 2, -1, -1):
        slopes.insert(0, _relu_backward(torch.mm(network[index + 1].t(), slopes[0]), hidden[index]))
    return slopes


def _relu_backward(grad: Tensor, hidden: Tensor) -> Tensor:
    """Return the gradient before a ReLU from that behind it and the ReLU's output."""
    return torch.ops.aten.threshold_backward(grad, hidden, 0)


def _add_value_gradients(
    grads: list[Tensor], network: Sequence[Tensor], hidden: list[Tensor], slopes: list[Tensor], tangent: Tensor
) -> None:
    """Add the gradients of the value network's weights; `tangent` as in `gradients`, C n."""
    for index, weight in enumerate(network[:-1]):
        grads[index].addmm_(slopes[index], tangent.t())
        tangent = _relu_backward(torch.mm(weight, tangent), hidden[index])
    grads[-1] += tangent.sum(1)


def _add_feature_gradients(grads: list[Tensor], network: Sequence[Tensor], encoded: Tensor, grad: Tensor) -> Tensor:
    """Add the gradients of the feature network's weights, and return that by the first hidden layer before its ReLU."""
    hidden = _hidden(encoded, network)
    grads[-1].addmm_(grad, hidden[-1].t())
    for index in range(len(hidden) - 1, -1, -1):
        grad = _relu_backward(torch.mm(network[index + 1].t(), grad), hidden[index])
        grads[index].addmm_(grad, (hidden[index - 1] if index else encoded).t())
    return grad
