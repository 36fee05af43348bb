"""Frames a cut-out object as in Zero123's training images: centred, its longer side 200 of 256 pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from zero123s.errors import ImageError
from zero123s.images.io import premultiply, unpremultiply

SHARE = 200 / 256
"""Share of the frame that the object's longer side takes (the original's input preparation)."""


MAX_NATIVE = 2048
"""Pixels; a texture of 4096 texels wraps the whole object, so a larger photo adds no detail."""


@dataclass(frozen=True)
class Framing:
    """The map between a photo and its framed square, in pixels with centres at +0.5: framed = scale * photo + offset."""

    scale: float
    offset: tuple[float, float]
    """x and y, framed pixels."""
    size: int
    """Side of the framed square."""


def object_bounds(alpha: Float[np.ndarray, "H W"]) -> tuple[float, float, float, float]:
    """Return the bounding box of the object with sub-pixel accuracy.

    An edge pixel counts by its coverage: its alpha in the most covered place of the object's outermost row or column.

    Args:
        alpha: H W in [0, 1].

    Returns:
        Left, top, right, bottom in pixels; the image spans 0 to W and 0 to H.

    Raises:
        ImageError: nothing in the image is at least half opaque.

    Example:
        >>> import numpy as np
        >>> from zero123s.preprocess.framing import object_bounds
        >>> alpha = np.zeros((8, 8))
        >>> alpha[2:6, 3:5] = 1
        >>> object_bounds(alpha)
        (3.0, 2.0, 5.0, 6.0)
    """
    left, right = _extent(alpha.max(axis=0))
    top, bottom = _extent(alpha.max(axis=1))
    return left, top, right, bottom


def frame_object(
    rgba: Float[np.ndarray, "H W 4"], size: int = 256, share: float = SHARE
) -> tuple[Float[np.ndarray, "S S 4"], Framing]:
    """Centre the object in a transparent square, its longer side scaled to a share of the frame.

    Args:
        rgba: H W 4, straight alpha in [0, 1].
        size: side S of the square in pixels.
        share: in (0, 1], of the frame that the object's longer side takes; 200/256 as in Zero123's training images.

    Returns:
        S S 4, straight alpha, and the map from the photo to it.

    Raises:
        ImageError: nothing in the image is at least half opaque.

    Example:
        >>> import numpy as np
        >>> from zero123s.preprocess.framing import frame_object, object_bounds
        >>> rgba = np.zeros((40, 60, 4), np.float32)
        >>> rgba[5:15, 5:25] = 1
        >>> framed, _ = frame_object(rgba, 256)
        >>> left, top, right, bottom = object_bounds(framed[..., 3])
        >>> framed.shape, abs(right - left - 200) < 1, abs(left + right - 256) < 1
        ((256, 256, 4), True, True)
    """
    left, top, right, bottom = object_bounds(rgba[..., 3])
    scale = share * size / max(right - left, bottom - top)
    centre = np.array([left + right, top + bottom]) / 2
    offset = size / 2 - scale * centre
    framing = Framing(scale, (float(offset[0]), float(offset[1])), size)
    return apply_framing(rgba, framing), framing


def native_size(alpha: Float[np.ndarray, "H W"], share: float = SHARE) -> int:
    """Return the side of the framed square in which the object keeps the photo's resolution.

    Args:
        alpha: H W in [0, 1].
        share: in (0, 1], of the frame that the object's longer side takes.

    Returns:
        Pixels, within 256 to 2048.

    Raises:
        ImageError: nothing in the image is at least half opaque.
    """
    left, top, right, bottom = object_bounds(alpha)
    return int(np.clip(np.ceil(max(right - left, bottom - top) / share), 256, MAX_NATIVE))


def apply_framing(rgba: Float[np.ndarray, "H W 4"], framing: Framing) -> Float[np.ndarray, "S S 4"]:
    """Resample an image into the framed square, which is transparent outside the photo.

    Args:
        rgba: H W 4, straight alpha in [0, 1].
        framing: the map from the photo to the square, of size S.

    Returns:
        S S 4, straight alpha.
    """
    # Warping reads four neighbours only: a photo finer than the square is sampled k times as finely and averaged.
    k = max(1, int(np.ceil(1 / framing.scale)))
    matrix = np.array([[framing.scale, 0, framing.offset[0]], [0, framing.scale, framing.offset[1]]]) * k
    matrix[:, 2] += 0.5 * matrix[0, 0] - 0.5  # OpenCV puts pixel centres at whole numbers
    fine = cv2.warpAffine(
        premultiply(rgba),
        matrix,
        (framing.size * k, framing.size * k),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0, 0),
    )
    return unpremultiply(cv2.resize(fine, (framing.size, framing.size), interpolation=cv2.INTER_AREA))


def _extent(profile: Float[np.ndarray, "N"]) -> tuple[float, float]:
    """Return the first and last covered coordinate along one axis; partly covered end pixels count by their alpha."""
    solid = np.flatnonzero(profile >= 0.5)
    if not len(solid):
        raise ImageError("The image shows no object: nothing in it is at least half opaque.")
    first, last = int(solid[0]), int(solid[-1])
    peak = float(profile[first : last + 1].max())

    def beyond(index: int) -> float:
        return float(profile[index]) / peak if 0 <= index < len(profile) else 0.0

    start = first + 1 - min(1.0, profile[first] / peak) - beyond(first - 1)
    end = last + min(1.0, profile[last] / peak) + beyond(last + 1)
    return float(start), float(end)
