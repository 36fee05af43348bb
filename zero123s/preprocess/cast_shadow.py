"""Shadows with a hard edge: ground darkened by one factor, which brightness alone takes for part of the object."""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float

from zero123s.preprocess.matte import disc

DARKEST, LIGHTEST = np.log(0.35), np.log(0.96)
"""Range of the logarithm of a shadow's brightness over that of the lit ground."""
MAX_TINT = 0.025
"""Largest median difference of a shadow's logarithmic colour ratios from their mean; it has the ground's hue."""
MAX_PIXEL_TINT = 0.04
"""The same of one pixel, into which JPEG smears the hue of its neighbours; beyond it a pixel has a hue of its own."""
MAX_TREND = 0.95
"""Largest change of the ratio across a shadow, in units of the tolerance; the shading of an object changes by more."""
MIN_OUTLINE = 0.18
"""Least share of a shadow's surroundings that is ground; a flat side of an object has more of the object around it."""
MIN_PIECE, MIN_SHARE = 0.015, 0.05
"""Least share of the mask of one piece of shadow, and of all that is taken away for them."""
MAX_LEFTOVER, HUELESS = 0.07, 0.6
"""Share of a cut-out with the ground's hue and a shadow's brightness, from which it is doubtful: part of a shadow may be
left in it. Beyond the second the object itself has that hue, which then distinguishes nothing."""
LEFTOVER_TINT = 0.06
"""Largest difference from the ground's hue of such a pixel: a narrow strip takes up some of the object's hue in a JPEG."""
LEVELS = 8
"""Values of the ratio that are examined, the most frequent first."""


def cast_shadow(
    rgb: Float[np.ndarray, "H W 3"], background: Float[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]
) -> tuple[Float[np.ndarray, "H W"], float]:
    """Find the part of a mask that is shaded ground, and how much of the rest has the ground's hue.

    The ratio of a shadow to the lit ground is the same everywhere and in all channels; the shading of an object varies,
    and its hue mostly differs. A gray object is ambiguous: its flat sides look like shadows.

    Args:
        rgb: H W 3 in [0, 1], the photo.
        background: H W 3 in [0, 1], the ground without shadows, as fitted to the photo's border.
        mask: H W, the object, perhaps with its shadow.

    Returns:
        H W, the factor by which the ground is darkened, 1 where it is lit, and the share of the remaining mask, 0 to 1,
        that cannot be distinguished from the ground by hue; 0 where there is no shadow.
    """
    lit = np.ones(mask.shape, np.float32)
    if not mask.any():
        return lit, 0.0
    ratio, tint = _ratio(rgb, background)
    tolerance = _tolerance(ratio, mask)
    pieces = list(_pieces(ratio, tint, mask, tolerance))
    factor = lit
    for level, piece in pieces:
        shaded = _grown(piece, level, ratio, tint, mask, tolerance)
        factor = np.where(shaded, np.minimum(factor, np.float32(np.exp(level))), factor)
    shadow = factor < 1
    rest = mask & ~shadow
    if shadow.sum() < MIN_SHARE * mask.sum() or not rest.any():  # what is a shadow throughout is an object
        return lit, 0.0
    return factor, float((tint[rest] < MAX_PIXEL_TINT).mean())


def leftover_share(
    rgb: Float[np.ndarray, "H W 3"], background: Float[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]
) -> float:
    """Return the share of a mask that may be shaded ground: it has the ground's hue and a shadow's brightness.

    Args:
        rgb: H W 3 in [0, 1], the photo.
        background: H W 3 in [0, 1], the ground without shadows.
        mask: H W, the object, after shadows were removed.

    Returns:
        0 to 1; 0 for an empty mask, and where so much of the object has the ground's hue that hue is uninformative.
    """
    if not mask.any():
        return 0.0
    ratio, tint = _ratio(rgb, background)
    shaded = mask & (ratio > DARKEST) & (ratio < LIGHTEST) & (tint < LEFTOVER_TINT)
    if shaded.sum() >= HUELESS * mask.sum():
        return 0.0
    n_pixels = 0
    for piece in _connected(shaded, least=12):
        around = _dilated(piece, 3) & ~piece
        if (around & ~mask).sum() > MIN_OUTLINE * around.sum():  # one inside the object is a part of it
            n_pixels += int(piece.sum())
    return n_pixels / int(mask.sum())


def _ratio(
    rgb: Float[np.ndarray, "H W 3"], background: Float[np.ndarray, "H W 3"]
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Return the logarithm of the photo's ratio to the ground, over the channels' mean, and the farthest from it."""
    smooth = cv2.GaussianBlur(np.ascontiguousarray(rgb, np.float32), (0, 0), 1.0)
    channels = np.log(np.maximum(smooth, 0.01)) - np.log(np.maximum(background, 0.01))
    ratio = channels.mean(-1)
    return ratio, np.abs(channels - ratio[..., None]).max(-1)


def _tolerance(ratio: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"]) -> float:
    """Return how far the ratio strays by noise: three standard deviations of the ground's, taken from its median."""
    ground = ratio[~_dilated(mask, 6)]
    noise = 1.48 * float(np.median(np.abs(ground - np.median(ground)))) if ground.size else 0.0
    return max(0.012, 3 * noise)


def _pieces(
    ratio: Float[np.ndarray, "H W"], tint: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"], tolerance: float
) -> Iterator[tuple[float, Bool[np.ndarray, "H W"]]]:
    """Yield the ratio and the inside of every connected piece of a mask that looks like a shadow."""
    inside = cv2.erode(mask.astype(np.uint8), disc(1)) > 0
    left = inside & (ratio > DARKEST) & (ratio < LIGHTEST) & (tint < MAX_PIXEL_TINT)
    least = MIN_PIECE * mask.sum()
    for _ in range(LEVELS):
        if left.sum() < least:
            return
        level = _most_frequent(ratio[left], tolerance)
        near = left & (np.abs(ratio - level) < tolerance)
        left &= ~near
        opened = cv2.morphologyEx(near.astype(np.uint8), cv2.MORPH_OPEN, disc(2))
        for piece in _connected(opened, least):
            around = _dilated(piece, 7) & ~piece
            if (
                np.median(tint[piece]) < MAX_TINT
                and _trend(ratio, piece) < MAX_TREND * tolerance
                and (around & ~mask).sum() > MIN_OUTLINE * around.sum()
            ):
                yield level, piece


def _most_frequent(values: Float[np.ndarray, "n"], tolerance: float) -> float:
    counts, edges = np.histogram(values, bins=np.arange(DARKEST - tolerance, LIGHTEST + 2 * tolerance, tolerance / 2))
    level = float(edges[np.convolve(counts, np.ones(4), "same").argmax()])
    for _ in range(3):
        near = values[np.abs(values - level) < tolerance]
        level = float(np.median(near)) if near.size else level
    return level


def _trend(ratio: Float[np.ndarray, "H W"], piece: Bool[np.ndarray, "H W"]) -> float:
    """Return how much a plane through the ratio of a piece changes across it."""
    y, x = np.nonzero(piece)
    basis = np.stack([np.ones(len(x)), x / piece.shape[1], y / piece.shape[0]], -1)
    return float(np.ptp(basis @ np.linalg.lstsq(basis, ratio[piece], rcond=None)[0]))


def _grown(
    piece: Bool[np.ndarray, "H W"],
    level: float,
    ratio: Float[np.ndarray, "H W"],
    tint: Float[np.ndarray, "H W"],
    mask: Bool[np.ndarray, "H W"],
    tolerance: float,
) -> Bool[np.ndarray, "H W"]:
    """Return a piece with the narrow strips of its ratio that it continues in or that border on the ground, and its edge."""
    same = mask & (np.abs(ratio - level) < 2 * tolerance) & (tint < MAX_PIXEL_TINT)
    shadow = piece.copy()
    for strip in _connected(cv2.morphologyEx(same.astype(np.uint8), cv2.MORPH_OPEN, disc(1)), least=12):
        around = _dilated(strip, 3) & ~strip
        if (strip & piece).any() or (around & ~mask).sum() > MIN_OUTLINE * around.sum():
            shadow |= strip
    between = mask & (ratio > level - 2 * tolerance) & (tint < 1.5 * MAX_PIXEL_TINT)
    return shadow | (_dilated(shadow, 5) & between)


def _connected(mask: np.ndarray, least: float) -> list[Bool[np.ndarray, "H W"]]:
    """Return the connected parts of at least so many pixels."""
    count, part, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return [part == i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= least]


def _dilated(mask: Bool[np.ndarray, "H W"], radius: int) -> Bool[np.ndarray, "H W"]:
    return cv2.dilate(mask.astype(np.uint8), disc(radius)) > 0
