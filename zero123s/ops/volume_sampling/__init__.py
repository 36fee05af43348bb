"""Trilinear samples of feature volumes: what the pose lift of the small Zero123 spends its time on."""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.volume_sampling import reference

__all__ = ["sample_volume"]


def sample_volume(
    volume: Float[Tensor, "B D H W F"], points: Float[Tensor, "B P 3"], backend: str = "auto"
) -> Float[Tensor, "B P F"]:
    """Interpolate channels-last volumes at points whose x, y, z in [-1, 1] run along W, H, D; zero outside.

    Cell centres lie at odd multiples of 1/size (`align_corners=False`). Differentiable in `volume`, not in `points`.
    """
    if volume.dtype != torch.float32 and backend == "auto":
        backend = "reference"  # the kernels are written for float32
    if backends.resolve("volume_sampling", backend, volume.device) == "numba":
        from zero123s.ops.volume_sampling import numba

        return numba.sample_volume(volume.contiguous(), points.detach().contiguous())
    return reference.sample_volume(volume, points.detach())
