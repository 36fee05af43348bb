"""Sums of anisotropic 3D Gaussians at arbitrary points: the field behind a splatted scene."""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.gaussian_sum import reference

__all__ = ["gaussian_sum"]


def gaussian_sum(
    x: Float[Tensor, "P 3"],
    means: Float[Tensor, "N 3"],
    factors: Float[Tensor, "N 3 3"],
    values: Float[Tensor, "N C"],
    backend: str = "auto",
) -> tuple[Float[Tensor, "P C"], Float[Tensor, "P 3"]]:
    """Return sum_i v_i exp(-q_i / 2) and the gradient of its first column, q_i the squared Mahalanobis distance.

    Gaussians count as zero where q_i > 16. Differentiable by the reference alone, which "auto" takes where a gradient
    is needed: the export of a trained field needs speed, and its training goes through `gaussian_splatting`.

    Args:
        x: P 3, points in the world.
        means: N 3, centres.
        factors: N 3 3, invertible M with covariance M M^T, as `covariance_factors` returns it.
        values: N C, what is summed.
        backend: "auto", "reference", "numba" (CPU) or "triton" (CUDA).

    Returns:
        The sums, P C, and the gradient of the first column with respect to `x`, P 3.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.gaussian_sum import gaussian_sum
        >>> at = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
        >>> sums, gradients = gaussian_sum(at, torch.zeros(1, 3), 0.1 * torch.eye(3)[None], torch.tensor([[2.0]]))
        >>> [round(v, 3) for v in sums[:, 0].tolist()], [round(v, 2) + 0.0 for v in gradients[1].tolist()]
        ([2.0, 1.213], [-12.13, 0.0, 0.0])
    """
    inverse = torch.linalg.inv(factors)
    precisions = inverse.mT @ inverse
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (x, means, factors, values))
    if backend == "auto" and (needs_gradient or x.dtype != torch.float32):
        backend = "reference"  # the kernels are written for float32, forward only
    chosen = backends.resolve("gaussian_sum", backend, x.device)
    if chosen == "triton" and backend == "auto":
        from zero123s.ops.gaussian_sum.agreement import kernels_agree

        chosen = chosen if kernels_agree(x.device) else "reference"
    if chosen == "reference":
        return reference.gaussian_sum(x, means, precisions, values)
    x, means, precisions, values = (t.detach().contiguous() for t in (x, means, precisions, values))
    if chosen == "triton":
        from zero123s.ops.gaussian_sum import triton

        return triton.gaussian_sum(x, means, precisions, values)
    from zero123s.ops.gaussian_sum import numba

    reach = (2 * reference.MAX_POWER) ** 0.5 * factors.detach().norm(dim=-1)
    return numba.gaussian_sum(x, means, precisions, values, reach.contiguous())
