"""Real spherical harmonics as an encoding of directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.errors import ConfigError

MAX_DEGREE = 4


def spherical_harmonics(dirs: Float[Tensor, "*B 3"], degree: int) -> Float[Tensor, "*B D"]:
    """Return the orthonormal real spherical harmonics of the bands 0 to degree - 1, in tiny-cuda-nn's order and signs.

    Every harmonic is a homogeneous polynomial, so that the zero vector, which stands for "no particular direction",
    gives the mean over all directions.

    Args:
        dirs: any leading shape and 3, unit directions.
        degree: number of bands, 1 to 4.

    Returns:
        The leading shape and degree^2 values.

    Raises:
        ConfigError: `degree` is out of range.

    Example:
        >>> import torch
        >>> from zero123s.ops.spherical_harmonics import spherical_harmonics
        >>> spherical_harmonics(torch.tensor([[0.0, 0.0, 1.0]]), degree=2).abs()
        tensor([[0.2821, 0.0000, 0.4886, 0.0000]])
    """
    if not 1 <= degree <= MAX_DEGREE:
        raise ConfigError(f"dir_encoding_config.degree: must lie in 1..{MAX_DEGREE}, got {degree}.")
    x, y, z = dirs.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    bands = [
        [torch.full_like(x, 0.28209479177387814)],
        [-0.48860251190291987 * y, 0.48860251190291987 * z, -0.48860251190291987 * x],
        [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525251999 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.54627421529603959 * (xx - yy),
        ],
        [
            0.59004358992664352 * y * (yy - 3 * xx),
            2.8906114426405538 * x * y * z,
            0.45704579946446572 * y * (xx + yy - 4 * zz),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            0.45704579946446572 * x * (xx + yy - 4 * zz),
            1.4453057213202769 * z * (xx - yy),
            0.59004358992664352 * x * (3 * yy - xx),
        ],
    ]
    return torch.stack([value for band in bands[:degree] for value in band], dim=-1)
