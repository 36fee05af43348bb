"""Trilinear sampling by torch's grid_sample."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def sample_volume(volume: Float[Tensor, "B D H W F"], points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B P F"]:
    """Return the interpolated features; see `zero123s.ops.volume_sampling.sample_volume`."""
    grid = points[:, :, None, None, :].to(volume.dtype)
    sampled = F.grid_sample(volume.movedim(-1, 1), grid, padding_mode="zeros", align_corners=False)
    return sampled[..., 0, 0].transpose(1, 2)
