"""Encoding and networks as one function of autograd, from the kernels of the encoding and the networks of a device.

Points and features are stored axis by axis (C N), as the encoding's kernels read and write them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops.encoded_networks import chunked, whole
from zero123s.ops.encoded_networks.cone import Cone
from zero123s.ops.hash_grid import GradBuffer, HashGrid, automatic_backend, kernels_of


def evaluate(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "P F"],
    grid: HashGrid,
    value_net: Sequence[Tensor],
    feature_net: Sequence[Tensor],
    gradient: bool,
    keep: GradBuffer | None,
    n_values: int,
    cone: Cone | None,
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M K"] | None, Float[Tensor, "N 3"] | None]:
    """Return a network's output on the encoding, another one's, and the first one's gradient by position.

    Args:
        x: N 3, points in the cone's box, or in [0, 1] without one; no gradient.
        table: P F, the features of all levels' grid points.
        grid: sizes of the levels.
        value_net: matrices of the network with one output.
        feature_net: matrices of the network with K outputs; none = no features.
        gradient: whether to return the gradient by position.
        keep: returns a buffer to add the table gradient to; None = autograd gets it.
        n_values: M, the points with value and features.
        cone: what is added to the value; None = nothing.

    Returns:
        Value M; features M K or None; gradient N 3 or None.
    """
    weights = [*value_net, *feature_net]
    if x.device.type == "cpu" and automatic_backend(x, table) == "numba" and len(value_net) == 2 >= len(feature_net):
        from zero123s.ops.encoded_networks import numba

        return numba.evaluate(x, table, grid, value_net, feature_net, gradient, keep, cone)
    inside = x.detach() if cone is None else x.detach() / (2 * cone.radius) + 0.5
    found = _EvaluateTogether.apply(inside, table, grid, len(value_net), gradient, keep, n_values, *weights)
    value, features, slope = found  # type: ignore[misc]
    features, slope = features.t() if feature_net else None, slope.t() if gradient else None
    if cone is not None:
        value = value + cone.value(x[:n_values])
        slope = None if slope is None else slope / (2 * cone.radius) + cone.gradient(x)
    return value, features, slope


class _EvaluateTogether(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        table: Tensor,
        grid: HashGrid,
        n_value_weights: int,
        gradient: bool,
        keep: GradBuffer | None,
        n_values: int,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        on_gpu = automatic_backend(x, table) == "triton"
        kernels = ctx.kernels = kernels_of("triton" if on_gpu else "numba")
        ctx.networks = whole if on_gpu else chunked
        axes, table = x.t().contiguous(), table.contiguous()
        encoded, slope = kernels.interpolate(axes, None, table, grid.levels), None
        value, features, encoding_gradient = ctx.networks.evaluate(
            encoded, n_values, weights[:n_value_weights], weights[n_value_weights:], gradient
        )
        if encoding_gradient is not None:
            slope = kernels.differentiate(axes, None, table, encoding_gradient, grid.levels)
        ctx.save_for_backward(axes, table, encoded, encoding_gradient, *weights)
        ctx.levels, ctx.n_value_weights, ctx.keep, ctx.n_values = grid.levels, n_value_weights, keep, n_values
        ctx.set_materialize_grads(False)
        return value, features, slope

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_value: Tensor | None, grad_features: Tensor | None, along: Tensor | None) -> tuple:  # type: ignore[override]
        axes, table, encoded, encoding_gradient, *weights = ctx.saved_tensors
        value_net, feature_net = weights[: ctx.n_value_weights], weights[ctx.n_value_weights :]
        valued = encoded[:, : ctx.n_values]
        grad_value = encoded.new_zeros(ctx.n_values) if grad_value is None else grad_value.contiguous()
        if grad_features is None and feature_net:
            grad_features = encoded.new_zeros(len(feature_net[-1]), ctx.n_values)
        # A ReLU network is piecewise linear, so value and position gradient pass through the same layers: the gradients of
        # the weights are those of the value at `tangent`, the encoding times `grad_value` plus its derivative along `along`.
        if along is None:
            tangent = valued * grad_value
        else:
            along = along.contiguous()
            tangent = ctx.kernels.interpolate(axes, along, table, ctx.levels)
            tangent[:, : ctx.n_values] += valued * grad_value
        encoding_gradient, grad_encoded, grads = ctx.networks.gradients(
            encoded, tangent, encoding_gradient, grad_features, value_net, feature_net
        )
        grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table) if ctx.keep is None else ctx.keep()
            # Likewise the value's gradient by the encoding is the one that the position gradient was chained from.
            ctx.kernels.add_all_to_table(
                axes, along, grad_value, encoding_gradient, grad_encoded, ctx.levels, grad_table
            )
        return (None, grad_table if ctx.keep is None else None, None, None, None, None, None, *grads)
