"""Plain-torch sums of 3D Gaussians at points: every Gaussian at every point, in chunks."""

import torch
from torch import Tensor

MAX_POWER = 8.0
"""Exponent beyond which a Gaussian counts as zero: exp(-8) = 0.0003."""
PAIRS_AT_ONCE = 1 << 22


def gaussian_sum(x: Tensor, means: Tensor, precisions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum every Gaussian at every point; see `zero123s.ops.gaussian_sum.gaussian_sum`.

    Args:
        x: P 3, points in the world.
        means: N 3, centres.
        precisions: N 3 3, inverse covariances.
        values: N C, what is summed.

    Returns:
        The sums, P C, and the gradient of the first column with respect to `x`, P 3.
    """
    step = max(1, PAIRS_AT_ONCE // max(1, len(means)))
    parts = [_sum_part(part, means, precisions, values) for part in x.split(step)]
    if not parts:
        return x.new_zeros(0, values.shape[1]), x.new_zeros(0, 3)
    sums, gradients = zip(*parts, strict=True)
    return torch.cat(sums), torch.cat(gradients)


def _sum_part(x: Tensor, means: Tensor, precisions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    offset = x[:, None] - means[None]
    pulled = (precisions[None] * offset[..., None, :]).sum(-1)
    power = 0.5 * (offset * pulled).sum(-1)
    weights = torch.where(power <= MAX_POWER, torch.exp(-power), torch.zeros_like(power))
    gradients = -((weights * values[:, 0])[..., None] * pulled).sum(1)
    return weights @ values, gradients
