"""Vectors as the last axis of a tensor."""

from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.vectors import reference

__all__ = ["unit"]


def unit(v: Float[Tensor, "*N 3"], eps: float = 1e-12, backend: str = "auto") -> Float[Tensor, "*N 3"]:
    """Return vectors scaled to unit length, v divided by the larger of its length and `eps`.

    `torch.nn.functional.normalize` does the same, with a norm that is many times slower over three numbers.
    Differentiable once.

    Args:
        v: any leading shape and 3, vectors.
        eps: smallest length that is divided by.
        backend: "auto", "reference" or "triton" (CUDA).

    Returns:
        Of the shape of `v`; zero vectors stay zero.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.vectors import unit
        >>> unit(torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]))
        tensor([[0.6000, 0.0000, 0.8000],
                [0.0000, 0.0000, 0.0000]])
    """
    if backend == "auto" and str(v.dtype) != "torch.float32":
        backend = "reference"  # the kernels are written for float32
    if backends.resolve("unit_vectors", backend, v.device) == "triton":
        from zero123s.ops.vectors import triton

        return triton.unit(v, eps)
    return reference.unit(v, eps)
