"""Trilinear samples of feature volumes, alone or composited along rays, for the pose lift of the small Zero123."""

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
    """Interpolate channels-last volumes trilinearly, zero outside; differentiable in `volume`, not in `points`.

    Cell centres lie at odd multiples of 1/size (`align_corners=False`).

    Args:
        volume: B D H W F, features of the cells.
        points: B P 3, (x, y, z) in [-1, 1] along W, H and D.
        backend: "auto", "reference" or "numba" (CPU).

    Returns:
        B P F.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.volume_sampling import sample_volume
        >>> volume = torch.tensor([2.0, 4.0]).view(1, 1, 1, 2, 1)  # two cells along x, their centres at -0.5 and 0.5
        >>> sample_volume(volume, torch.tensor([[[-0.5, 0, 0], [0.0, 0, 0], [3.0, 0, 0]]]))[0, :, 0].tolist()
        [2.0, 3.0, 0.0]
    """
    if _runs_numba(volume, backend):
        from zero123s.ops.volume_sampling import numba

        return numba.sample_volume(volume.contiguous(), points.detach().float().contiguous())
    return reference.sample_volume(volume, points.detach())


def composite_volume(
    volume: Float[Tensor, "B D H W F"], points: Float[Tensor, "B R S 3"], medium: Medium, backend: str = "auto"
) -> Float[Tensor, "B R F"]:
    """Composite a volume's features front to back along rays; differentiable in `volume`, not in `points`.

    The first feature is the density; outside the volume it is zero, for which the medium has its opacity, too. The
    `numba` backend leaves out what lies behind a transmittance of 1e-5.

    Args:
        volume: B D H W F, density and F - 1 other features of the cells.
        points: B R S 3, the S samples of each ray, nearest first, as in `sample_volume`.
        medium: turns densities into opacities.
        backend: "auto", "reference" or "numba" (CPU).

    Returns:
        B R F: each ray's opacity in [0, 1], then its weighted sums of the other features.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.volume_sampling import Medium, composite_volume
        >>> volume = torch.tensor([9.0, 0.5]).view(1, 1, 1, 1, 2)  # one dense cell with the feature 0.5
        >>> ray = torch.zeros(1, 1, 4, 3)
        >>> composite_volume(volume, ray, Medium(gain=1.0, shift=0.0, scale=10.0)).round(decimals=3).tolist()
        [[[1.0, 0.5]]]
    """
    if _runs_numba(volume, backend):
        from zero123s.ops.volume_sampling import numba

        return numba.composite_volume(volume.contiguous(), points.detach().float().contiguous(), medium)
    return reference.composite_volume(volume, points.detach(), medium)


def _runs_numba(volume: Tensor, backend: str) -> bool:
    """Return whether the kernels, written for float32, run on this volume."""
    if volume.dtype != torch.float32 and backend == "auto":
        backend = "reference"
    return backends.resolve("volume_sampling", backend, volume.device) == "numba"
