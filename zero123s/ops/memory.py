"""Running out of memory, on any device, and doing the same work with less of it."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

# oneDNN, which convolves on CPUs, says of a primitive only that it could not be created.
_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|bad_alloc|could not create a primitive",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out: Python's, NumPy's, CUDA's, or torch's allocator on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_WORDS.search(str(error)))


def free_cached_memory() -> None:
    """Give back what torch keeps of a CUDA device for later, and of a backward pass that failed."""
    with torch.enable_grad():
        x = torch.zeros((), requires_grad=True)
        torch.autograd.grad(x + 0, x)  # autograd drops what was left to do on the CPU, and its graph, at the next pass
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def recomputed(function: Callable[[], tuple[Tensor, ...]], parameters: list[Tensor]) -> tuple[Tensor, ...]:
    """Return `function()` without keeping its graph: the backward pass calls it again.

    Args:
        function: gives the same tensors whenever it is called; may differentiate inside.
        parameters: all that its results depend on and that wants gradients.
    """
    if not torch.is_grad_enabled():
        return function()
    return _Recomputed.apply(function, *parameters)  # type: ignore[return-value]


def recomputed_terms(function: Callable[[], dict[str, Tensor]], parameters: list[Tensor]) -> dict[str, Tensor]:
    """Return `function()`, tensors by name, without keeping its graph; see `recomputed`."""
    names: list[str] = []

    def compute() -> tuple[Tensor, ...]:
        terms = function()
        names[:] = terms
        return tuple(terms.values())

    values = recomputed(compute, parameters)
    return dict(zip(names, values, strict=True))


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function: Callable[[], tuple[Tensor, ...]], *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*parameters)
        return tuple(t.detach() for t in function())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor | None) -> tuple:  # type: ignore[override]
        parameters = ctx.saved_tensors
        with torch.enable_grad():
            results = ctx.function()
        pairs = [(t, g) for t, g in zip(results, grads, strict=True) if t.requires_grad and g is not None]
        if not pairs:
            return (None, *[None] * len(parameters))
        outputs, given = zip(*pairs, strict=True)
        return (None, *torch.autograd.grad(outputs, parameters, given, allow_unused=True))
