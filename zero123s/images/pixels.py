"""Converts any in-memory image to straight-alpha floats."""

from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float
from PIL import Image

from zero123s.errors import ImageError
from zero123s.images.io import MIN_SIDE, read_image

ImageLike = str | Path | bytes | IO[bytes] | Image.Image | np.ndarray
"""A file's path, its bytes, an open file, a PIL image, or an array H W 4 (floats in [0, 1] or 8-bit)."""


def to_rgba(image: ImageLike, name: str = "image") -> Float[np.ndarray, "H W 4"]:
    """Convert any image to straight-alpha floats.

    Args:
        image: a path, bytes, an open file, a PIL image, or an array or tensor H W 3 or H W 4, 8-bit or floats in [0,
            1].
        name: of the argument, for error messages.

    Returns:
        H W 4, float32 in [0, 1].

    Raises:
        ImageError: not an image, or one that cannot be read.

    Example:
        >>> import numpy as np
        >>> from zero123s.images.pixels import to_rgba
        >>> to_rgba(np.full((8, 8, 4), 255, np.uint8))[0, 0].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if isinstance(image, str | Path | bytes | bytearray | memoryview) or hasattr(image, "read"):
        return read_image(image).rgba  # type: ignore[arg-type]
    if not isinstance(image, Image.Image | np.ndarray) and not hasattr(image, "__array__"):
        raise ImageError(
            f"{name}: a {type(image).__name__} is not an image; give a path, bytes, an open file, a PIL image or an array."
        )
    if hasattr(image, "detach"):  # a tensor that may require a gradient, or lie on another device
        image = image.detach().cpu()  # type: ignore[union-attr]
    pixels = np.asarray(image.convert("RGBA") if isinstance(image, Image.Image) else image)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size:
        raise ImageError(f"{name}: an array {pixels.shape} of {pixels.dtype} is not an image; give H W 3 or H W 4.")
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ImageError(f"{name}: {pixels.shape[1]} x {pixels.shape[0]} pixels are too few to see an object in.")
    is_whole = pixels.dtype.kind in "iu"
    values = pixels.astype(np.float32) / (255 if is_whole else 1) if is_whole or pixels.dtype.kind == "f" else None
    if values is None or not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ImageError(
            f"{name}: an array of {pixels.dtype} should hold whole numbers from 0 to 255, or floats from 0 to 1."
        )
    rgba = values if values.shape[2] == 4 else np.concatenate([values, np.ones_like(values[..., :1])], axis=-1)
    if not rgba[..., 3].any():
        raise ImageError(f"{name}: the image is fully transparent; give one in which the object is visible.")
    return rgba
