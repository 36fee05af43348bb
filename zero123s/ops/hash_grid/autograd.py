"""The encoding's derivatives from a backend's kernels, the same for every backend that has them.

Kernels read and write points and features axis by axis and feature by feature (3 N, LF N), contiguous.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops.hash_grid.reference import GradBuffer, Level


@runtime_checkable
class Kernels(Protocol):
    """The functions of a backend; with `v`, the first three return their derivative along `v` instead."""

    @staticmethod
    def interpolate(
        x: Float[Tensor, "3 N"], v: Float[Tensor, "3 N"] | None, table: Float[Tensor, "P F"], levels: tuple[Level, ...]
    ) -> Float[Tensor, "LF N"]:
        """Return the features at points.

        Args:
            x: 3 N, points in [0, 1].
            v: 3 N, directions of the derivative, or None.
            table: P F, the features of all levels' grid points.
            levels: all levels.

        Returns:
            LF N.
        """
        ...

    @staticmethod
    def add_to_table(
        x: Float[Tensor, "3 N"],
        v: Float[Tensor, "3 N"] | None,
        grad: Float[Tensor, "LF N"],
        levels: tuple[Level, ...],
        grad_table: Float[Tensor, "P F"],
    ) -> None:
        """Add the gradient of `grad . interpolate(x)` with respect to the table.

        Args:
            x: 3 N, points in [0, 1].
            v: 3 N, directions of the derivative, or None.
            grad: LF N, gradient with respect to the features.
            levels: all levels.
            grad_table: P F, what is added to.
        """
        ...

    @staticmethod
    def differentiate(
        x: Float[Tensor, "3 N"],
        v: Float[Tensor, "3 N"] | None,
        table: Float[Tensor, "P F"],
        grad: Float[Tensor, "LF N"],
        levels: tuple[Level, ...],
    ) -> Float[Tensor, "3 N"]:
        """Return the gradient of `grad . interpolate(x)` with respect to `x`.

        Args:
            x: 3 N, points in [0, 1].
            v: 3 N, directions of the derivative, or None.
            table: P F, the features of all levels' grid points.
            grad: LF N, gradient with respect to the features.
            levels: all levels.

        Returns:
            3 N.
        """
        ...

    @staticmethod
    def add_all_to_table(
        x: Float[Tensor, "3 N"],
        v: Float[Tensor, "3 N"] | None,
        factor: Float[Tensor, "M"],
        by_value: Float[Tensor, "LF N"],
        grad: Float[Tensor, "LF M"] | None,
        levels: tuple[Level, ...],
        grad_table: Float[Tensor, "P F"],
    ) -> None:
        """Do in one pass `add_to_table(x, None, factor * by_value + grad)`, of the first M points, and
        `add_to_table(x, v, by_value)` of all.

        Args:
            x: 3 N, points in [0, 1].
            v: 3 N, directions of the derivative; None = without the second.
            factor: M, of the first points, M <= N (numba: M = N).
            by_value: LF N, gradient with respect to the features.
            grad: LF M, likewise; None = 0.
            levels: all levels.
            grad_table: P F, what is added to.
        """
        ...


def encode(
    kernels: type[Kernels], x: Tensor, table: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None
) -> Float[Tensor, "N LF"]:
    """Encode as `reference.encode` does; twice differentiable in `x`, once in `table`.

    Args:
        kernels: of the backend.
        x: N 3, points in [0, 1].
        table: P F, the features of all levels' grid points.
        levels: all levels.
        keep: returns a buffer to add the table gradient to; None = autograd gets it.

    Returns:
        N L*F, level by level.
    """
    return _Encode.apply(x, table, kernels, levels, keep)  # type: ignore[return-value]


def position_gradient(
    kernels: type[Kernels], x: Tensor, table: Tensor, grad: Tensor, levels: tuple[Level, ...], keep: GradBuffer | None
) -> Float[Tensor, "N 3"]:
    """Return the gradient of `grad . encode(x)` with respect to `x`, differentiable in `table` and `grad`.

    Args:
        kernels: of the backend.
        x: N 3, points in [0, 1].
        table: P F, the features of all levels' grid points.
        grad: N L*F, gradient with respect to the features.
        levels: all levels.
        keep: returns a buffer to add the table gradient to; None = autograd gets it.

    Returns:
        N 3.
    """
    return _PositionGradient.apply(x.detach(), table, grad, kernels, levels, keep)  # type: ignore[return-value]


def _by_axis(x: Tensor) -> Tensor:
    """Return N C as contiguous C N: free for what these functions made themselves."""
    return x.detach().t().contiguous()


def _table_gradient(ctx, x: Tensor, v: Tensor | None, grad: Tensor, table: Tensor) -> Tensor | None:
    """Return the gradient, or add it to the buffer that the caller keeps and return None."""
    if ctx.keep is None:
        return _new_table_gradient(ctx, x, v, grad, table)
    ctx.kernels.add_to_table(x, v, _by_axis(grad), ctx.levels, ctx.keep())
    return None


def _new_table_gradient(ctx, x: Tensor, v: Tensor | None, grad: Tensor, table: Tensor) -> Tensor:
    grad_table = torch.zeros_like(table, dtype=torch.float32)  # half precision would lose small addends
    ctx.kernels.add_to_table(x, v, _by_axis(grad), ctx.levels, grad_table)
    return grad_table.to(table.dtype)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, table: Tensor, kernels: type[Kernels], levels: tuple[Level, ...], keep: GradBuffer | None
    ) -> Tensor:
        axes = _by_axis(x)
        ctx.save_for_backward(x, axes, table)
        ctx.kernels, ctx.levels, ctx.keep = kernels, levels, keep
        return kernels.interpolate(axes, None, table, levels).t()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:  # type: ignore[override]
        x, axes, table = ctx.saved_tensors
        grad_x = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_x = _PositionGradient.apply(x, table, grad, ctx.kernels, ctx.levels, ctx.keep)
        if ctx.needs_input_grad[1]:
            if torch.is_grad_enabled() and grad.requires_grad:
                grad_table = _TableGradient.apply(x, table, grad, ctx.kernels, ctx.levels)
            else:
                grad_table = _table_gradient(ctx, axes, None, grad, table)
        return grad_x, grad_table, None, None, None


class _TableGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, grad: Tensor, kernels: type[Kernels], levels: tuple[Level, ...]):
        ctx.kernels, ctx.levels = kernels, levels
        return _new_table_gradient(ctx, _by_axis(x), None, grad, table)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple:  # type: ignore[override]
        raise NotImplementedError(
            "The table gradient of the encoding's kernels is differentiable once: use 'reference'."
        )


class _PositionGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        table: Tensor,
        grad: Tensor,
        kernels: type[Kernels],
        levels: tuple[Level, ...],
        keep: GradBuffer | None,
    ) -> Tensor:
        axes = _by_axis(x)
        ctx.save_for_backward(axes, table, grad)
        ctx.kernels, ctx.levels, ctx.keep = kernels, levels, keep
        return kernels.differentiate(axes, None, table, _by_axis(grad), levels).t()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v: Tensor) -> tuple:  # type: ignore[override]
        axes, table, grad = ctx.saved_tensors
        along = _by_axis(v)
        grad_x = grad_table = jvp = None
        if ctx.needs_input_grad[0]:
            grad_x = ctx.kernels.differentiate(axes, along, table, _by_axis(grad), ctx.levels).t()
        if ctx.needs_input_grad[1]:
            grad_table = _table_gradient(ctx, axes, along, grad, table)
        if ctx.needs_input_grad[2]:
            jvp = ctx.kernels.interpolate(axes, along, table, ctx.levels).t()
        return grad_x, grad_table, jvp, None, None, None
