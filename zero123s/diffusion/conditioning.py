"""What Zero123 is told about the input image and the wanted view, and its noise schedule.

Source: Liu et al. 2023, "Zero-1-to-3", and the released code's arithmetic; every constant here is part of the weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

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
    """Describe the wanted view relative to the input's: polar difference, sin and cos of the azimuth difference, and a
    fourth term that depends on the family.

    The polar angle is measured from +z, so a camera that goes up has a negative difference. The fourth term is the
    absolute polar angle of the input view (stable-zero123, radians) or the difference in distance (zero123).
    """
    polar = torch.deg2rad(cond_elevation_deg - elevation_deg)
    azimuth = torch.deg2rad(azimuth_deg - cond_azimuth_deg)
    fourth = torch.deg2rad(90 - cond_elevation_deg) if family == "stable-zero123" else distance - cond_distance
    return torch.stack([polar, torch.sin(azimuth), torch.cos(azimuth), fourth], dim=-1)


def clip_pixels(rgb: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 S S"]:
    """Resize and normalise an image in [0, 1] exactly as the original did for its image encoder.

    Bicubic with aligned corners and without antialiasing, in [-1, 1], overshoot kept: the weights were trained on
    this and not on CLIP's own preprocessing, which changes the embedding by some 3 %.
    """
    resized = F.interpolate(rgb * 2 - 1, (size, size), mode="bicubic", align_corners=True)
    mean = rgb.new_tensor(CLIP_MEAN).view(1, 3, 1, 1)
    std = rgb.new_tensor(CLIP_STD).view(1, 3, 1, 1)
    return ((resized + 1) / 2 - mean) / std


def fit_image(rgb: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C S S"]:
    """Bring an image to the model's size: area average when it shrinks, bilinear when it grows."""
    if rgb.shape[-2:] == (size, size):
        return rgb
    if min(rgb.shape[-2:]) > size:
        return F.interpolate(rgb, (size, size), mode="area")
    return F.interpolate(rgb, (size, size), mode="bilinear", align_corners=False)


def alphas_cumprod(linear_start: float, linear_end: float, timesteps: int) -> Float[Tensor, "T"]:
    """Return the cumulative signal power of the "scaled linear" schedule (called "linear" in the original)."""
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()
