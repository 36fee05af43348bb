"""Group norm and SiLU in plain torch."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def group_norm_silu(
    x: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    n_groups: int,
    eps: float,
    shift: Float[Tensor, "B C"] | None,
) -> Float[Tensor, "B C H W"]:
    """Normalise and activate; see `zero123s.ops.group_norm.group_norm_silu`.

    Args:
        x: B C H W, the input.
        weight: C, scales after the norm.
        bias: C, added after them.
        n_groups: groups of channels.
        eps: added to the variance.
        shift: B C, added to the input; None = 0.

    Returns:
        B C H W.
    """
    if shift is not None:
        x = x + shift[:, :, None, None]
    return F.silu(F.group_norm(x, n_groups, weight, bias, eps))
