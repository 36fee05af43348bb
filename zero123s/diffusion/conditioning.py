"""Zero123's conditioning on the input image and the target view, and its noise schedule.

Source: Liu et al. 2023, "Zero-1-to-3", and the released code's arithmetic; every constant here is part of the weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zero123s.ops.constants import constant

FAMILIES = ("stable-zero123", "zero123")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def pose_vector(
    family: str,
    elevation_deg: Float[Tensor, "B"],
    azimuth_deg: Float[Tensor, "B"],
    distance: Float[Tensor, "B"],
    cond_elevation_deg: Float[Tensor, "B"],
    cond_azimuth_deg: Float[Tensor, "B"],
    cond_distance: Float[Tensor, "B"],
) -> Float[Tensor, "B 4"]:
    """Describe target views relative to the input view.

    The terms are the polar difference, sin and cos of the azimuth difference, and the absolute polar angle of the input
    view (stable-zero123) or the difference in distance (zero123). The polar angle is measured from +z, so a camera that
    goes up has a negative difference.

    Args:
        family: "stable-zero123" or "zero123".
        elevation_deg: B, of the target cameras.
        azimuth_deg: B, of the target cameras.
        distance: B, of the target cameras, in world units.
        cond_elevation_deg: B, of the input's camera.
        cond_azimuth_deg: B, of the input's camera.
        cond_distance: B, of the input's camera, in world units.

    Returns:
        B 4, angles in radians.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.conditioning import pose_vector
        >>> zero, right, far = torch.tensor([0.0]), torch.tensor([90.0]), torch.tensor([3.8])
        >>> pose_vector("stable-zero123", zero, right, far, zero, zero, far).round(decimals=4).abs()
        tensor([[0.0000, 1.0000, 0.0000, 1.5708]])
    """
    polar = torch.deg2rad(cond_elevation_deg - elevation_deg)
    azimuth = torch.deg2rad(azimuth_deg - cond_azimuth_deg)
    fourth = torch.deg2rad(90 - cond_elevation_deg) if family == "stable-zero123" else distance - cond_distance
    return torch.stack([polar, torch.sin(azimuth), torch.cos(azimuth), fourth], dim=-1)


def clip_pixels(rgb: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 S S"]:
    """Resize and normalise an image exactly as the original did for its image encoder.

    Bicubic with aligned corners and without antialiasing, in [-1, 1], overshoot kept: the weights were trained on this
    and not on CLIP's own preprocessing, which changes the embedding by some 3 %.

    Args:
        rgb: B 3 H W, in [0, 1].
        size: edge of the encoder's input in pixels.

    Returns:
        B 3 S S, normalised with CLIP's mean and deviation.
    """
    resized = F.interpolate(rgb * 2 - 1, (size, size), mode="bicubic", align_corners=True)
    mean = constant(CLIP_MEAN, rgb).view(1, 3, 1, 1)
    std = constant(CLIP_STD, rgb).view(1, 3, 1, 1)
    return ((resized + 1) / 2 - mean) / std


def fit_image(rgb: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C S S"]:
    """Resize an image to the model's size: area average when it shrinks, bilinear when it grows.

    Args:
        rgb: B C H W.
        size: edge of the result in pixels.

    Returns:
        B C S S.

    Example:
        >>> import torch
        >>> from zero123s.diffusion.conditioning import fit_image
        >>> fit_image(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]), 1).item()
        0.5
    """
    if rgb.shape[-2:] == (size, size):
        return rgb
    if min(rgb.shape[-2:]) > size:
        return F.interpolate(rgb, (size, size), mode="area")
    return F.interpolate(rgb, (size, size), mode="bilinear", align_corners=False)


def alphas_cumprod(linear_start: float, linear_end: float, timesteps: int) -> Float[Tensor, "T"]:
    """Return the cumulative signal power of the "scaled linear" noise schedule (called "linear" in the original).

    Args:
        linear_start: first beta.
        linear_end: last beta.
        timesteps: length T of the schedule.

    Returns:
        T, falling from nearly 1 to nearly 0.

    Example:
        >>> from zero123s.diffusion.conditioning import alphas_cumprod
        >>> alphas_cumprod(0.00085, 0.012, 1000)[[0, 500, 999]]
        tensor([0.9991, 0.2763, 0.0047])
    """
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()
