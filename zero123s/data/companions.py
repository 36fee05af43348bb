"""Depth and normal maps that belong to an input image."""

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from zero123s.errors import ConfigError, ImageError
from zero123s.images.io import read_image, resize_rgba, write_png_atomic
from zero123s.runtime.files import replacing

NORMAL_CONVENTIONS = {"opengl": (1.0, 1.0, 1.0), "opencv": (1.0, -1.0, -1.0), "world": (1.0, 1.0, 1.0)}
"""Factors that turn an image's axes into OpenGL camera axes; world normals stay as they are."""
ASPECT_TOLERANCE = 0.02


def companion_path(image_path: str, kind: str, given: str | None) -> Path:
    """Return `given`, or the file next to the input: X_rgba.png and X.png have X_depth.png ("depth"), and so on."""
    if given:
        return Path(given)
    image = Path(image_path)
    return image.with_name(f"{image.stem.removesuffix('_rgba')}_{kind}.png")


def read_companion(path: Path, kind: str, rgba: Float[np.ndarray, "H W 4"]) -> Float[np.ndarray, "H W 4"]:
    """Read a depth or normal map at the input's size, with the input's transparency.

    Raises:
        ImageError: it cannot be read, or has another aspect ratio than the input.
    """
    try:
        image = read_image(path).rgba[..., :3]
    except ImageError as error:
        raise ImageError(
            f"{error} data.requires_{kind} needs a {kind} image next to the input; data.{kind}_path names another."
        ) from error
    height, width = rgba.shape[:2]
    aspect, expected = image.shape[1] / image.shape[0], width / height
    if abs(aspect / expected - 1) > ASPECT_TOLERANCE:
        raise ImageError(
            f"'{path}' has {image.shape[1]}x{image.shape[0]} pixels, another shape than the input's "
            f"{width}x{height}; the {kind} image must show the same frame."
        )
    if image.shape[:2] != (height, width):
        shrinks = image.shape[0] > height
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=method)
    return np.concatenate([image, rgba[..., 3:]], axis=-1).astype(np.float32)


def write_companion(path: Path, image: Float[np.ndarray, "S S 4"]) -> Path:
    """Write a depth or normal map for `read_companion`, with 16 bits per channel if it is grey.

    Raises:
        OutputError: it cannot be written.
    """
    rgb = image[..., :3]
    if not np.allclose(rgb[..., :1], rgb):
        return write_png_atomic(path, rgb)
    with replacing(path, sync=False) as file:
        Image.fromarray(np.rint(rgb[..., 0] * 65535).astype(np.uint16)).save(file, format="PNG")
    return path


def decode_depth(
    image: Float[np.ndarray, "h w 4"], height: int, width: int, bright_is: str
) -> Float[Tensor, "1 H W 1"]:
    """Return values that increase with distance, up to an unknown scale and shift; "near" inverts the scale."""
    values = torch.from_numpy(resize_rgba(image, height, width)[..., :3].mean(axis=-1, keepdims=True))[None]
    return values if bright_is == "far" else 1 - values


def decode_normal(
    image: Float[np.ndarray, "h w 4"], height: int, width: int, convention: str, c2w: Float[Tensor, "4 4"]
) -> Float[Tensor, "1 H W 3"]:
    """Return unit world normals of an image of (n + 1) / 2 in the given axes."""
    encoded = torch.from_numpy(resize_rgba(image, height, width)[..., :3])
    normal = F.normalize(2 * encoded - 1, dim=-1) * torch.tensor(NORMAL_CONVENTIONS[convention])
    return (normal if convention == "world" else normal @ c2w[:3, :3].T)[None]


def check_conventions(depth_bright_is: str, normal_convention: str) -> None:
    """Raise ConfigError for an unknown depth or normal convention."""
    if depth_bright_is not in ("far", "near"):
        raise ConfigError(f"data.depth_bright_is: '{depth_bright_is}' is neither far nor near.")
    if normal_convention not in NORMAL_CONVENTIONS:
        raise ConfigError(f"data.normal_convention: '{normal_convention}' is none of {', '.join(NORMAL_CONVENTIONS)}.")
