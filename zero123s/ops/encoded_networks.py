"""A hash encoding and the small networks behind it, evaluated together on a CPU.

For one set of points the encoding is interpolated once for the value, its gradient by position and the features, each
hidden layer is computed once per pass, and all gradients are added to the table in one pass. Points and features are
stored axis by axis (C N), as the encoding's kernels read and write them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.hash_grid import GradBuffer, HashGrid

CHUNK = 4096
"""Points whose hidden layers stay in the cache together."""


class Evaluated(NamedTuple):
    """What `evaluate_together` returns."""

    value: Float[Tensor, "N"]
    features: Float[Tensor, "N K"] | None
    gradient: Float[Tensor, "N 3"] | None


def can_evaluate_together(x: Tensor, table: Tensor, weights: Sequence[Tensor]) -> bool:
    """Return whether `evaluate_together` is written for these tensors, and may be used.

    Args:
        x: N 3, the points.
        table: P F, of the hash grid.
        weights: of all networks.

    Returns:
        True for float32 on a CPU with numba, an even number of features per level, and no autocast.

    Example:
        >>> import torch
        >>> from zero123s.ops.encoded_networks import can_evaluate_together
        >>> can_evaluate_together(torch.rand(5, 3).double(), torch.ones(64, 2), [torch.ones(8, 4), torch.ones(1, 8)])
        False
    """
    return (
        x.device.type == "cpu"
        and all(t.dtype == torch.float32 for t in (x, table, *weights))
        and table.shape[1] % 2 == 0
        and not torch.is_autocast_enabled("cpu")
        and backends.resolve("hash_grid", "auto", x.device) == "numba"
    )


def evaluate_together(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "P F"],
    grid: HashGrid,
    value_weights: Sequence[Tensor],
    feature_weights: Sequence[Tensor] = (),
    gradient: bool = False,
    grad_buffer: GradBuffer | None = None,
) -> Evaluated:
    """Return a network's output on the hash encoding, its gradient by position, and another network's output.

    The same as `hash_grid.encode`, `mlp_forward`, `mlp_input_gradient` and `hash_grid.position_gradient` one after the
    other, with ReLU. Differentiable once, in the table and the weights.

    Args:
        x: N 3, points in [0, 1]; no gradient.
        table: P F, the features of all levels' grid points.
        grid: sizes of the levels, L of them.
        value_weights: matrices of a network with one output: H LF, H H, ..., 1 H; at least two.
        feature_weights: of a network with K outputs; none = no features.
        gradient: whether to return the value's gradient by position.
        grad_buffer: as in `hash_grid.encode`.

    Returns:
        Value N; features N K or None; gradient N 3 or None.

    Example:
        >>> import torch
        >>> from zero123s.ops.encoded_networks import evaluate_together
        >>> from zero123s.ops.hash_grid import HashGrid
        >>> grid = HashGrid(n_levels=2, log2_hashmap_size=8, base_resolution=4)
        >>> table, first, last = torch.ones(grid.n_rows, 2), torch.ones(8, 4), torch.ones(1, 8)
        >>> out = evaluate_together(torch.rand(5, 3), table, grid, [first, last], gradient=True)
        >>> [round(v, 4) for v in out.value.tolist()]  # 8 hidden units that each add up 4 ones
        [32.0, 32.0, 32.0, 32.0, 32.0]
        >>> out.gradient.abs().max().item() < 1e-4  # the same everywhere
        True
    """
    assert x.device.type == "cpu", "written for CPUs"
    weights = [*value_weights, *feature_weights]
    found = _EvaluateTogether.apply(x.detach(), table, grid, len(value_weights), gradient, grad_buffer, *weights)
    value, features, slope = found  # type: ignore[misc]
    return Evaluated(value, features.t() if feature_weights else None, slope.t() if gradient else None)


class _EvaluateTogether(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        table: Tensor,
        grid: HashGrid,
        n_value: int,
        gradient: bool,
        keep: GradBuffer | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        from zero123s.ops.hash_grid.numba import NumbaKernels

        axes, table = x.t().contiguous(), table.contiguous()
        value_net, feature_net = weights[:n_value], weights[n_value:]
        encoded = NumbaKernels.interpolate(axes, None, table, grid.levels)
        n = axes.shape[1]
        value = x.new_empty(1, n)
        features = x.new_empty(len(feature_net[-1]), n) if feature_net else None
        encoding_gradient = torch.empty_like(encoded) if gradient else None
        for part in _chunks(n):
            hidden = _hidden(encoded[:, part], value_net)
            torch.mm(value_net[-1], hidden[-1], out=value[:, part])
            if encoding_gradient is not None:
                torch.mm(value_net[0].t(), _slopes(hidden, value_net)[0], out=encoding_gradient[:, part])
            if features is not None:
                torch.mm(feature_net[-1], _hidden(encoded[:, part], feature_net)[-1], out=features[:, part])
        slope = None
        if encoding_gradient is not None:
            slope = NumbaKernels.differentiate(axes, None, table, encoding_gradient, grid.levels)
        ctx.save_for_backward(axes, table, encoded, encoding_gradient, *weights)
        ctx.levels, ctx.n_value, ctx.keep = grid.levels, n_value, keep
        return value[0], features, slope

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_value: Tensor, grad_features: Tensor | None, along: Tensor | None) -> tuple:  # type: ignore[override]
        from zero123s.ops.hash_grid.numba import NumbaKernels

        axes, table, encoded, encoding_gradient, *weights = ctx.saved_tensors
        value_net, feature_net = weights[: ctx.n_value], weights[ctx.n_value :]
        # A ReLU network is piecewise linear, so value and position gradient pass through the same layers: the gradients of
        # the weights are those of the value at `tangent`, the encoding times `grad_value` plus its derivative along `along`.
        tangent = encoded * grad_value
        if along is not None:
            along = along.contiguous()
            tangent += NumbaKernels.interpolate(axes, along, table, ctx.levels)
        kept = encoding_gradient is not None
        if encoding_gradient is None:
            encoding_gradient = torch.empty_like(encoded)
        grad_encoded = torch.empty_like(encoded) if feature_net else None
        grads = [torch.zeros_like(w) for w in weights]
        for part in _chunks(axes.shape[1]):
            hidden = _hidden(encoded[:, part], value_net)
            slopes = _slopes(hidden, value_net)
            if not kept:
                torch.mm(value_net[0].t(), slopes[0], out=encoding_gradient[:, part])
            _add_value_gradients(grads[: ctx.n_value], value_net, hidden, slopes, tangent[:, part])
            if grad_encoded is not None:
                assert grad_features is not None
                by_features = _add_feature_gradients(
                    grads[ctx.n_value :], feature_net, encoded[:, part], grad_features[:, part]
                )
                torch.mm(feature_net[0].t(), by_features, out=grad_encoded[:, part])
        grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table) if ctx.keep is None else ctx.keep()
            NumbaKernels.add_all_to_table(
                axes, along, grad_value, encoding_gradient, grad_encoded, ctx.levels, grad_table
            )
        return (None, grad_table if ctx.keep is None else None, None, None, None, None, *grads)


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
    """Add the gradients of the value network's weights; `tangent` as in `backward`, LF n."""
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
