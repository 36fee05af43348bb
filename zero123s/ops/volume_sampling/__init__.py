"""Trilinear samples of feature volumes, alone or composited along rays: what the small Zero123's pose lift looks with."""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.volume_sampling import reference
from zero123s.ops.volume_sampling.reference import Medium

__all__ = ["Medium", "composite_volume", "sample_volume"]


def sample_volume(
    volume: Float[Tensor, "B D H W F"], points: Float[Tensor, "B P 3"], backend: str = "auto"
) -> Float[Tensor, "B P F"]:
    """Interpolate channels-last volumes at points whose x, y, z in [-1, 1] run along W, H, D; zero outside.

    Cell centres lie at odd multiples of 1/size (`align_corners=False`). Differentiable in `volume`, not in `points`.
    """
    if _runs_numba(volume, backend):
        from zero123s.ops.volume_sampling import numba

        return numba.sample_volume(volume.contiguous(), points.detach().float().contiguous())
    return reference.sample_volume(volume, points.detach())


def composite_volume(
    volume: Float[Tensor, "B D H W F"], points: Float[Tensor, "B R S 3"], medium: Medium, backend: str = "auto"
) -> Float[Tensor, "B R F"]:
    """Composite a volume's features front to back along rays of S points; the first feature is the density.

    Points as in `sample_volume`. Returns the ray's opacity first, then its weighted sums of the other features; outside
    the volume everything is zero, and the density of zero is the medium's. Differentiable in `volume`, not in `points`.
    The `numba` backend leaves out what lies behind a transmittance of 1e-5.
    """
    if _runs_numba(volume, backend):
        from zero123s.ops.volume_sampling import numba

        return numba.composite_volume(volume.contiguous(), points.detach().float().contiguous(), medium)
    return reference.composite_volume(volume, points.detach(), medium)


def _runs_numba(volume: Tensor, backend: str) -> bool:
    """Tell whether the kernels, written for float32, run on this volume."""
    if volume.dtype != torch.float32 and backend == "auto":
        backend = "reference"
    return backends.resolve("volume_sampling", backend, volume.device) == "numba"
