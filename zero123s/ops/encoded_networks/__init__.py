"""A hash encoding and the small networks behind it, evaluated together.

For one set of points the encoding is interpolated once for the value, its gradient by position and the features, and all
gradients are added to the table in one pass, on a GPU with half the atomic additions. On a CPU each hidden layer is
computed once per pass, too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops.encoded_networks.cone import Cone
from zero123s.ops.encoded_networks.joint import evaluate
from zero123s.ops.hash_grid import GradBuffer, HashGrid, automatic_backend

__all__ = ["Cone", "Evaluated", "can_evaluate_together", "evaluate_together"]


class Evaluated(NamedTuple):
    """What `evaluate_together` returns."""

    value: Float[Tensor, "M"]
    features: Float[Tensor, "M K"] | None
    gradient: Float[Tensor, "N 3"] | None


def can_evaluate_together(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "P F"],
    weights: Sequence[Tensor],
    gradient: bool = False,
    n_values: int | None = None,
) -> bool:
    """Return whether `evaluate_together` is written for these tensors, and may be used.

    Args:
        x: N 3, the points.
        table: P F, of the hash grid.
        weights: of all networks.
        gradient: whether the gradient by position is requested.
        n_values: points with a value, None = all.

    Returns:
        True for float32 where the hash grid has kernels, without autocast: on a CPU (numba, an even number of features per
        level) for values of all points, on CUDA (Triton, a power of two, sums in varying order allowed) for gradients,
        because without them the table has only one gradient.

    Example:
        >>> import torch
        >>> from zero123s.ops.encoded_networks import can_evaluate_together
        >>> can_evaluate_together(torch.rand(5, 3).double(), torch.ones(64, 2), [torch.ones(8, 4), torch.ones(1, 8)])
        False
    """
    backend = automatic_backend(x, table)
    if backend == "reference" or any(t.dtype != torch.float32 for t in (x, table, *weights)):
        return False
    if torch.is_autocast_enabled(x.device.type):
        return False
    if backend != "triton":
        return n_values in (None, len(x))
    return gradient and _table_gradients_agree(x.device, table.shape[1])


def _table_gradients_agree(device: torch.device, n_features: int) -> bool:
    from zero123s.ops.encoded_networks.agreement import table_gradients_agree

    return table_gradients_agree(device, n_features)


def evaluate_together(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "P F"],
    grid: HashGrid,
    value_weights: Sequence[Tensor],
    feature_weights: Sequence[Tensor] = (),
    gradient: bool = False,
    grad_buffer: GradBuffer | None = None,
    n_values: int | None = None,
    cone: Cone | None = None,
) -> Evaluated:
    """Return a network's output on the hash encoding, its gradient by position, and another network's output.

    The same as `hash_grid.encode`, `mlp_forward`, `mlp_input_gradient` and `hash_grid.position_gradient` one after the
    other, with ReLU. Differentiable once, in the table and the weights.

    Args:
        x: N 3, points in [0, 1], or with a cone in its box [-radius, radius]; no gradient.
        table: P F, the features of all levels' grid points.
        grid: sizes of the levels, L of them.
        value_weights: matrices of a network with one output: H LF, H H, ..., 1 H; at least two.
        feature_weights: of a network with K outputs; none = no features.
        gradient: whether to return the value's gradient by position.
        grad_buffer: as in `hash_grid.encode`.
        n_values: the first M points get a value and features, all of them a gradient; None = M is N, as on a CPU always.
        cone: is added to the value, as its gradient is to that by position, which is by the points in the box then.

    Returns:
        Value M; features M K or None; gradient N 3 or None.

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
    n_values = len(x) if n_values is None else n_values
    found = evaluate(x, table, grid, value_weights, feature_weights, gradient, grad_buffer, n_values, cone)
    return Evaluated(*found)
