"""Confidence of masks, on one scale for masks found in a photo and for a file's own transparency."""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Float

from zero123s.preprocess.matte import disc

THRESHOLD = 0.5
"""Confidence below which a mask is not used unless forced."""
CHROMA_WEIGHT = 0.3
"""Weight of a and b relative to L in edge detection: JPEG stores them at half the resolution."""


def lowest_score(scores: Mapping[str, float]) -> tuple[float, str]:
    """Return the lowest score as the confidence.

    Args:
        scores: score by the name of the problem that a low value means.

    Returns:
        The lowest, clipped to [0, 1], and its name if it is below THRESHOLD, else "".

    Example:
        >>> from zero123s.preprocess.mask_confidence import lowest_score
        >>> lowest_score({"it is too small": 0.2, "it touches the edge": 0.9})
        (0.2, 'it is too small')
    """
    reason = min(scores, key=lambda name: scores[name])
    confidence = float(np.clip(scores[reason], 0, 1))
    return confidence, reason if confidence < THRESHOLD else ""


def shape_scores(mask: Bool[np.ndarray, "H W"], outlying: Bool[np.ndarray, "H W"] | None = None) -> dict[str, float]:
    """Score a mask by its shape: a score below THRESHOLD means that the problem it is named after is present.

    Args:
        mask: H W, the object.
        outlying: H W, pixels that differ from the background, where these are more than the object.

    Returns:
        Score by problem, not clipped.
    """
    if not mask.any():
        return {"no object was found": 0.0}
    outlying = mask if outlying is None else outlying
    border = np.concatenate([outlying[0], outlying[-1], outlying[:, 0], outlying[:, -1]]).mean()
    solid = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disc(2)).sum() / mask.sum()
    return {
        "the object touches the edge of the image or the background is not a smooth surface": 1 - 4 * border,
        "it is too small": mask.mean() / 0.01,
        "only its outline was found; object and background have the same hue": 2 * solid - 0.5,
    }


def edge_scores(
    rgb: Float[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], edges: Bool[np.ndarray, "H W"] | None = None
) -> dict[str, float]:
    """Score a mask by the photo's edges.

    Args:
        rgb: H W 3 in [0, 1], the photo.
        mask: H W, the object found in it.
        edges: H W, edges of brightness, where the background is expected to have none.

    Returns:
        Score by problem, as in `shape_scores`; empty for an empty mask.
    """
    if not mask.any():
        return {}
    whole = mask.astype(np.uint8)
    rim = mask & ~(cv2.erode(whole, np.ones((3, 3), np.uint8)) > 0)
    any_edge = cv2.dilate(_edges(rgb, CHROMA_WEIGHT, 1.0).astype(np.uint8), disc(2)) > 0
    scores = {}
    if rim.any():  # a mask of the whole frame has no outline
        on_edge = (rim & any_edge).sum() / rim.sum()
        scores["part of its outline runs where the photo shows no edge"] = 2.5 * on_edge - 1.4
    if edges is not None:
        # 6 pixels: JPEG's blocks carry ripples of the outline that far.
        # Each edge pixel counts by its distance: an edge all around a missed part, not the strip that a good mask lacks.
        distance = cv2.distanceTransform(1 - whole, cv2.DIST_L2, 5)
        missed = distance[edges & (distance > 6)].sum() / mask.sum()
        scores["part of it was not found; object and background have the same hue"] = 1 - 1.45 * missed
    return scores


def luminance_edges(rgb: Float[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "H W"]:
    """Detect steps in brightness; soft shadows and gradients, wider than about 3 pixels, are ignored.

    Args:
        rgb: H W 3 in [0, 1].

    Returns:
        H W, True on edges.
    """
    return _edges(rgb, 0.0, 1.0)


def lab(rgb: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """Convert sRGB to CIELAB.

    Args:
        rgb: H W 3 in [0, 1].

    Returns:
        H W 3, L from 0 to 100, a and b about -127 to 127.
    """
    return cv2.cvtColor(np.ascontiguousarray(rgb, np.float32), cv2.COLOR_RGB2LAB)


def _edges(rgb: Float[np.ndarray, "H W 3"], chroma_weight: float, least: float) -> Bool[np.ndarray, "H W"]:
    """Detect steps of at least `least` CIELAB units per pixel that exceed the border's noise."""
    colour = lab(rgb) * np.array([1, chroma_weight, chroma_weight], np.float32)
    fine = _slope(cv2.GaussianBlur(colour, (0, 0), 0.8))
    # A step loses two thirds of its slope when it is blurred so much, a shadow's edge next to nothing.
    coarse = _slope(cv2.GaussianBlur(colour, (0, 0), 3.0))
    band = max(2, round(0.04 * min(rgb.shape[:2])))
    border = np.ones(rgb.shape[:2], bool)
    border[band:-band, band:-band] = False
    floor = max(least, 1.5 * float(np.percentile(fine[border], 90)))
    step = (fine > floor) & (coarse < 0.65 * fine)
    count, part, stats, _ = cv2.connectedComponentsWithStats(step.astype(np.uint8), connectivity=8)
    peak = np.zeros(count, np.float32)
    np.maximum.at(peak, part.ravel(), fine.ravel())
    line = (stats[:, cv2.CC_STAT_AREA] >= 20) & (peak > 1.5 * floor)
    line[0] = False
    return line[part]


def _slope(colour: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, "H W"]:
    x, y = (cv2.Sobel(colour, -1, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
    return np.sqrt((x**2 + y**2).sum(-1))
