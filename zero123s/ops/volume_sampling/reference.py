"""Feature volumes by torch's grid_sample and batched products."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LEAK = 1e-6
"""What an opaque sample still lets through: gradients of the samples behind it stay finite."""


class Medium(NamedTuple):
    """Opacity of one step through a density: 1 - exp(-softplus(gain density - shift) scale)."""

    gain: float
    shift: float
    scale: float

    def opacity(self, density: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the opacity of one step.

        Args:
            density: any shape.

        Returns:
            Of the same shape, in [0, 1].

        Example:
            >>> import torch
            >>> from zero123s.ops.volume_sampling import Medium
            >>> Medium(gain=1.0, shift=0.0, scale=1.0).opacity(torch.tensor([0.0])).item()  # 1 - exp(-log 2)
            0.5
        """
        return 1 - torch.exp(-F.softplus(self.gain * density - self.shift) * self.scale)


def sample_volume(volume: Float[Tensor, "B D H W F"], points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B P F"]:
    """Return the interpolated features; see `zero123s.ops.volume_sampling.sample_volume`.

    Args:
        volume: B D H W F, features of the cells.
        points: B P 3, in [-1, 1].

    Returns:
        B P F.
    """
    grid = points[:, :, None, None, :].to(volume.dtype)
    sampled = F.grid_sample(volume.movedim(-1, 1), grid, padding_mode="zeros", align_corners=False)
    return sampled[..., 0, 0].transpose(1, 2)


def composite_volume(
    volume: Float[Tensor, "B D H W F"], points: Float[Tensor, "B R S 3"], medium: Medium
) -> Float[Tensor, "B R F"]:
    """Return what rays accumulate; see `zero123s.ops.volume_sampling.composite_volume`.

    Args:
        volume: B D H W F, density and other features of the cells.
        points: B R S 3, in [-1, 1].
        medium: turns densities into opacities.

    Returns:
        B R F.
    """
    values = sample_volume(volume, points.flatten(1, 2)).unflatten(1, points.shape[1:3])
    alpha = medium.opacity(values[..., 0])
    through = torch.cumprod(1 - alpha + LEAK, dim=-1)
    weights = alpha * torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)
    features = (weights[..., None, :] @ values[..., 1:])[..., 0, :]
    return torch.cat([weights.sum(-1, keepdim=True), features], dim=-1)
