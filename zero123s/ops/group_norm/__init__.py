"""Group norm and the activation that follows it in every residual block of the Zero123 networks, weights frozen."""

from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.group_norm import reference

__all__ = ["group_norm_silu"]


def group_norm_silu(
    x: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    n_groups: int,
    eps: float = 1e-5,
    shift: Float[Tensor, "B C"] | None = None,
    backend: str = "auto",
) -> Float[Tensor, "B C H W"]:
    """Return silu(group_norm(x + shift)) (Wu, He 2018; Elfwing et al. 2018).

    Forward is one Triton kernel where plain torch takes three operations, backward one for two, and one tensor is kept
    for the backward pass instead of two. The kernels are differentiable in `x` only, once; `auto` takes plain torch where another gradient
    is needed, or images lie with their channels last.

    Args:
        x: B C H W, the input, of any float dtype; sums are in float32.
        weight: C, scales after the norm.
        bias: C, added after them.
        n_groups: groups G of C / G channels each, which are normalised together.
        eps: added to the variance.
        shift: B C, added to the input before the norm; None = 0.
        backend: "auto", "reference" or "triton" (CUDA).

    Returns:
        B C H W, of the dtype of `x`.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.group_norm import group_norm_silu
        >>> x = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
        >>> group_norm_silu(x, torch.ones(1), torch.zeros(1), n_groups=1).flatten().tolist()
        [-0.268..., 0.731...]
    """
    others = (weight, bias) if shift is None else (weight, bias, shift)
    if backend == "auto" and (not x.is_contiguous() or any(t.requires_grad for t in others)):
        backend = "reference"
    if backends.resolve("group_norm", backend, x.device) == "triton":
        from zero123s.ops.group_norm import agreement, triton

        if backend != "auto" or agreement.kernels_agree(x.device, x.dtype):
            return triton.group_norm_silu(x, weight, bias, n_groups, eps, shift)
    return reference.group_norm_silu(x, weight, bias, n_groups, eps, shift)
