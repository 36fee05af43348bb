"""Removes haze and specks from a file's own transparency and scores it like a mask found in a photo."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from zero123s.errors import ImageError
from zero123s.preprocess.mask_confidence import lowest_score
from zero123s.preprocess.matte import disc

OPAQUE = 0.5
"""Alpha from which a pixel belongs to the object."""
VISIBLE = 0.04
"""Alpha below which a pixel is taken for empty."""
SPECK_SHARE = 0.005
"""Of the largest part's area: separate parts below it are specks."""
PART_SHARE = 0.1
"""Of the largest part's area: a separate part above it may be a second object."""
SMALL_PIXELS = 64
"""Longer side of an object below which it is reconstructed with little detail."""


def clean_transparency(
    rgba: Float[np.ndarray, "H W 4"],
) -> tuple[Float[np.ndarray, "H W 4"], float, str, tuple[str, ...]]:
    """Remove haze and specks from an image's transparency and score the mask that remains.

    Args:
        rgba: H W 4, straight alpha in [0, 1].

    Returns:
        The image without haze and specks (the same array if there are none), the mask's confidence in [0, 1], the
        reason of a low one, and notes for the user.

    Raises:
        ImageError: nothing in the image is at least half opaque.
    """
    peak = float(rgba[..., 3].max())
    if peak < OPAQUE:
        raise ImageError(
            f"The image is {peak:.0%} opaque at most, and the object is what is at least {OPAQUE:.0%} opaque; make a "
            "glass object opaque in an image editor, or give the photo with its background."
        )
    alpha, notes = rgba[..., 3], []
    for clean, note in (
        (_without_haze, "a glow or soft shadow around the object was removed from the image's transparency."),
        (_without_specks, "specks around the object were removed from the image's transparency."),
    ):
        cleaned = clean(alpha)
        if cleaned is not alpha:
            alpha = cleaned
            notes.append(note)
    scores, warnings = _mask_scores(alpha)
    if notes:
        colours = np.where(alpha[..., None] > 0, rgba[..., :3], 0)
        rgba = np.concatenate([colours, alpha[..., None]], -1).astype(np.float32)
    confidence, reason = lowest_score(scores)
    return rgba, confidence, reason, (*notes, *warnings)


def _without_haze(alpha: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Remove a glow or soft shadow around the opaque part from alpha; returns the same array if there is none.

    Haze reaches farther from the opaque part than a soft edge, is not surrounded by it as a window is, and fades away
    where glass ends at an edge.
    """
    core = alpha >= min(0.9, float(alpha.max()) * 0.95)
    if core.sum() < 0.3 * (alpha >= OPAQUE).sum():
        return alpha  # the object itself is translucent
    _, _, width, height = cv2.boundingRect(core.astype(np.uint8))
    reach = max(3, round(0.02 * max(width, height)))
    body = _filled(core)
    far = ~(cv2.dilate(body.astype(np.uint8), disc(reach)) > 0)
    haze = (alpha > VISIBLE) & ~body
    _, part = cv2.connectedComponents(haze.astype(np.uint8), connectivity=8)
    reaching = np.bincount(part[haze & far], minlength=part.max() + 1) > 0
    reaching[0] = False
    # Alpha at the outer edge of each part: glow fades out, glass and stray opaque pixels do not.
    outer = haze & (cv2.dilate((alpha <= VISIBLE).astype(np.uint8), disc(1)) > 0)
    count = np.maximum(np.bincount(part[outer], minlength=len(reaching)), 1)
    at_edge = np.bincount(part[outer], weights=alpha[outer], minlength=len(reaching)) / count
    glow = (reaching & (at_edge < 0.2))[part]
    if (glow & far).sum() < 0.005 * body.sum():
        return alpha
    # Near the body, glow and soft edge overlap: the glow's level is subtracted from both.
    level = float(np.percentile(alpha[glow & far], 98))
    near = glow & ~far
    kept = np.clip((alpha - level) / max(1 - level, 0.05), 0, 1)
    faded = glow | ((alpha <= VISIBLE) & ~body)
    return np.where(near, kept, np.where(faded, 0, alpha)).astype(np.float32)


def _without_specks(alpha: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Remove separate parts below SPECK_SHARE from alpha; returns the same array if there are none."""
    _, part, stats, _ = cv2.connectedComponentsWithStats((alpha > VISIBLE).astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0
    speck = areas < SPECK_SHARE * areas.max()
    speck[0] = False
    return np.where(speck[part], 0, alpha).astype(np.float32) if speck.any() else alpha


def _mask_scores(alpha: Float[np.ndarray, "H W"]) -> tuple[dict[str, float], list[str]]:
    """Return the scores of a mask that came with its file, and notes on lesser problems."""
    mask = alpha >= OPAQUE
    _, _, width, height = cv2.boundingRect(mask.astype(np.uint8))
    longer = max(width, height)
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    # All four sides touched: the image was cropped to the object, nothing is missing.
    is_cropped_tight = all(side.any() for side in sides)
    contact = max(side.sum() / extent for side, extent in zip(sides, (width, width, height, height), strict=True))
    scores = {
        f"the object is only {longer} pixels large": longer / (SMALL_PIXELS / 2),
        "the object is cut by the edge of the image": 1.0 if is_cropped_tight else 1 - contact / 0.4,
    }
    warnings = []
    if longer < SMALL_PIXELS:
        warnings.append(f"the object is only {longer} pixels large; a larger image of it gives more detail.")
    if not is_cropped_tight and contact > 0.05:
        warnings.append("the object touches the edge of the image; what is cut off there cannot be rebuilt.")
    areas = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2][1:, cv2.CC_STAT_AREA]
    large = int((areas >= PART_SHARE * areas.max()).sum())
    if large > 1:
        warnings.append(f"the image shows {large} separate parts; all are rebuilt as one object.")
    faint = (alpha > VISIBLE) & (alpha < OPAQUE)
    if faint.sum() > 0.2 * mask.sum():
        warnings.append(
            f"{faint.sum() / (faint | mask).sum():.0%} of what is visible is less than half opaque; it becomes thin or "
            "is left out of the mesh."
        )
    return scores, warnings


def _filled(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return `mask` with its holes filled."""
    _, part = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)
    return (part != part[0, 0])[1:-1, 1:-1]
