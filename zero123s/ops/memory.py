"""Running out of memory, on any device, and doing the same work with less of it."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
logger = logging.getLogger(__name__)

# oneDNN, which convolves on CPUs, says of a primitive only that it could not be created.
_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|bad_alloc|could not create a primitive",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out.

    Args:
        error: any exception.

    Returns:
        True for those of Python, NumPy, CUDA, and torch's allocator on the CPU.

    Example:
        >>> from zero123s.ops.memory import is_out_of_memory
        >>> is_out_of_memory(RuntimeError("CUDA out of memory.")), is_out_of_memory(RuntimeError("shape mismatch"))
        (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_WORDS.search(str(error)))


def free_cached_memory() -> None:
    """Release what torch caches of a CUDA device's memory, and what a failed backward pass left behind."""
    with torch.enable_grad():
        x = torch.zeros((), requires_grad=True)
        torch.autograd.grad(x + 0, x)  # autograd drops what was left to do on the CPU, and its graph, at the next pass
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def retry_on_oom(compute: Callable[[], T], use_less: Callable[[], str | None]) -> T:
    """Return the result of a computation; as often as memory runs out, make it need less and compute again.

    Args:
        compute: may be called several times; what a failed call has done must not matter to the next one.
        use_less: makes the next call need less memory and returns what changed in a few words; None = nothing can,
            and the error propagates.

    Returns:
        What the first call that succeeds returns.

    Example:
        >>> from zero123s.ops.memory import retry_on_oom
        >>> sizes = [4, 2, 1]
        >>> def compute():
        ...     if sizes[0] > 1:
        ...         raise MemoryError
        ...     return f"batches of {sizes[0]}"
        >>> retry_on_oom(compute, use_less=lambda: f"batches of {sizes.pop(0) // 2}")
        'batches of 1'
    """
    while True:
        try:
            return compute()
        except (RuntimeError, MemoryError) as error:
            changed = use_less() if is_out_of_memory(error) else None
            if changed is None:
                raise
        # Behind the `except`: the error's traceback held every tensor of the attempt.
        free_cached_memory()
        logger.warning("warning: memory ran out; %s from now on.", changed)


def recomputed(function: Callable[[], tuple[Tensor, ...]], parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the results of a function without keeping its graph: the backward pass calls it again.

    Args:
        function: gives the same tensors whenever it is called; may differentiate inside.
        parameters: all tensors that its results depend on and that need gradients.

    Returns:
        The function's tensors, differentiable once in `parameters`.

    Example:
        >>> import torch
        >>> from zero123s.ops.memory import recomputed
        >>> w = torch.tensor(3.0, requires_grad=True)
        >>> (y,) = recomputed(lambda: (w**2,), [w])
        >>> y.backward()
        >>> y.item(), w.grad.item()
        (9.0, 6.0)
    """
    if not torch.is_grad_enabled():
        return function()
    return _Recomputed.apply(function, *parameters)  # type: ignore[return-value]


def mean_over_parts(
    terms: Callable[[slice], dict[str, Tensor]], n: int, n_parts: int, parameters: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the mean of loss terms over items, computed part by part: the memory of one part, the same gradients.

    Args:
        terms: gives the mean of every term over the items of a slice.
        n: number of items.
        n_parts: parts that the items are split into.
        parameters: all tensors that the terms depend on and that need gradients.

    Returns:
        The mean of every term by name.

    Example:
        >>> import torch
        >>> from zero123s.ops.memory import mean_over_parts
        >>> w, x = torch.tensor(2.0, requires_grad=True), torch.arange(10.0)
        >>> mean_over_parts(lambda part: {"loss": (w * x[part]).mean()}, 10, 3, [w])["loss"].item()
        9.0
    """
    size = -(-n // n_parts)
    if size >= n:
        return terms(slice(0, n))
    names: list[str] = []

    def compute(part: slice) -> tuple[Tensor, ...]:
        found = terms(part)
        names[:] = found
        return tuple(found.values())

    totals: dict[str, Tensor] = {}
    for start in range(0, n, size):
        part = slice(start, min(start + size, n))
        values = recomputed(lambda part=part: compute(part), parameters)
        for name, value in zip(names, values, strict=True):
            totals[name] = totals.get(name, 0) + (part.stop - part.start) / n * value
    return totals


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
