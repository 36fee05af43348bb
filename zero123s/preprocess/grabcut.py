"""Cuts an object out in front of a plain or smooth background, without a trained network."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from zero123s.preprocess.cast_shadow import MAX_LEFTOVER, cast_shadow, leftover_share
from zero123s.preprocess.mask_confidence import edge_scores, lab, lowest_score, luminance_edges, shape_scores
from zero123s.preprocess.matte import disc, edge_alpha, with_foreground_colours

WORK_SIDE = 384
"""Longer side, in pixels, at which object and background are separated; edges are refined at full size."""
GAP_RADIUS = 3
"""Pixels; gaps of an outline up to twice as wide are closed before it is filled."""


def cut_out_offline(rgb: Float[np.ndarray, "H W 3"]) -> tuple[Float[np.ndarray, "H W 4"], float, str]:
    """Cut the object out in front of a smooth background by GrabCut (Rother et al. 2004), without a trained network.

    Args:
        rgb: H W 3 in [0, 1].

    Returns:
        H W 4, straight alpha; the confidence in [0, 1]; the reason of a low one, else "".
    """
    height, width = rgb.shape[:2]
    shrink = min(1.0, WORK_SIDE / max(height, width))
    small = cv2.resize(rgb, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else rgb
    background, noise = fit_background(small)
    edges = luminance_edges(small)
    difference, inside = _difference(small, background, noise, edges)
    seed = (difference > max(4.0 * noise, 7.0)) | inside
    if not 0.002 < seed.mean() < 0.98:
        empty = np.concatenate([rgb, np.zeros_like(rgb[..., :1])], -1)
        return empty, 0.0, "nothing stands out from the background"
    mask = _clean_mask(_grab_cut(small, difference, seed))
    factor, of_grounds_hue = cast_shadow(small, background, mask)
    scores, lit = {}, background
    if (factor < 1).any():
        shadow = factor < 1
        mask = _clean_mask(cv2.morphologyEx((mask & ~shadow).astype(np.uint8), cv2.MORPH_OPEN, disc(2)) > 0)
        seed &= ~shadow
        edges &= ~(cv2.dilate(shadow.astype(np.uint8), disc(6)) > 0)
        background = (
            background * cv2.erode(factor, disc(3))[..., None]
        )  # so far beyond its edge: what the object's edge mixes with
        scores["its shadow cannot be distinguished from an object of the background's hue"] = 1 - 4 * of_grounds_hue
    leftover = leftover_share(small, lit, mask)
    scores["part of it has the background's hue and may be a cast shadow"] = 1 - leftover / (2 * MAX_LEFTOVER)
    scores |= shape_scores(mask, mask | seed) | edge_scores(small, mask, edges)
    scores |= _background_scores(mask, seed, difference, noise)
    confidence, reason = lowest_score(scores)
    full_mask = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    full_background = cv2.resize(background, (width, height), interpolation=cv2.INTER_LINEAR)
    alpha = edge_alpha(rgb, full_mask, full_background, radius=max(1, round(1.5 / shrink)))
    return with_foreground_colours(rgb, alpha, full_background), confidence, reason


def fit_background(rgb: Float[np.ndarray, "H W 3"]) -> tuple[Float[np.ndarray, "H W 3"], float]:
    """Fit a quadratic surface to the border's colours, robust to an object that touches it.

    Args:
        rgb: H W 3 in [0, 1].

    Returns:
        H W 3, the background's colours, and the noise: the median distance of border pixels from the surface in CIELAB.
    """
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = 2 * x / width - 1, 2 * y / height - 1
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    band = max(2, round(0.04 * min(height, width)))
    border = np.ones((height, width), bool)
    border[band:-band, band:-band] = False
    design, target = basis[border], rgb[border]
    weight = np.ones(len(target), np.float32)
    for _ in range(12):
        root = np.sqrt(weight)[:, None]
        coefficients = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        residual = np.linalg.norm(target - design @ coefficients, axis=-1)
        weight = 1 / (1 + (residual / (2 * np.median(residual) + 1e-3)) ** 2) ** 2
    background = np.clip(basis @ coefficients, 0, 1).astype(np.float32)
    noise = np.median(np.linalg.norm(lab(rgb)[border] - lab(background)[border], axis=-1))
    return background, float(noise)


def _difference(
    rgb: Float[np.ndarray, "H W 3"],
    background: Float[np.ndarray, "H W 3"],
    noise: float,
    edges: Bool[np.ndarray, "H W"],
) -> tuple[Float[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Return the distance from the background in CIELAB, soft shadows weighted low, and the enclosed region."""
    smooth = cv2.GaussianBlur(lab(rgb), (0, 0), 0.8)
    delta = smooth - lab(background)
    darkening = -delta[..., 0]
    chroma = np.linalg.norm(delta[..., 1:], axis=-1)
    distance = np.linalg.norm(delta, axis=-1)
    inside = _enclosed(edges, distance, noise)
    slope = np.hypot(cv2.Sobel(smooth[..., 0], -1, 1, 0, scale=1 / 8), cv2.Sobel(smooth[..., 0], -1, 0, 1, scale=1 / 8))
    # A soft shadow darkens by up to about 40 units, leaves the hue nearly alone and has no edge of its own.
    shadow = (darkening > 0) & (darkening < 40) & (chroma < 0.2 * darkening + 3) & (slope < 4) & ~inside
    return np.where(shadow, 0.05 * darkening + 0.5 * chroma, distance).astype(np.float32), inside


def _enclosed(
    edges: Bool[np.ndarray, "H W"], distance: Float[np.ndarray, "H W"], noise: float
) -> Bool[np.ndarray, "H W"]:
    """Return the inside of closed outlines, without parts that look like the background (the hole of a ring)."""
    pad = 2 * GAP_RADIUS
    padded = np.pad(edges, pad).astype(np.uint8)
    sealed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc(GAP_RADIUS))[pad:-pad, pad:-pad] > 0
    count, part = cv2.connectedComponents((~sealed).astype(np.uint8), connectivity=4)
    inside = np.ones(count, bool)
    inside[0] = False
    inside[np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])] = False
    for i in np.flatnonzero(inside):
        inside[i] = np.percentile(distance[part == i], 80) >= 2.5 + 1.5 * noise
    # The outline itself stays undecided, but for the pixel next to what it surrounds.
    return cv2.dilate(inside[part].astype(np.uint8), disc(1)) > 0


def _grab_cut(
    rgb: Float[np.ndarray, "H W 3"], difference: Float[np.ndarray, "H W"], seed: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    closed = cv2.morphologyEx(seed.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    sure = cv2.erode(seed.astype(np.uint8), kernel) > 0
    labels = np.where(closed > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[sure] = cv2.GC_FGD
    labels[cv2.dilate(closed, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))) == 0] = cv2.GC_BGD
    labels[(difference < 2.5) & (labels == cv2.GC_PR_BGD)] = cv2.GC_BGD
    if not (labels == cv2.GC_BGD).any() or not sure.any():
        return seed
    cv2.setRNGSeed(0)
    pixels = np.rint(rgb * 255).astype(np.uint8)[..., ::-1].copy()
    cv2.grabCut(pixels, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _clean_mask(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Remove islands under 3 % of the largest part and fill holes under 0.1 % of it."""

    def drop(part: Bool[np.ndarray, "H W"], least: float) -> Bool[np.ndarray, "H W"]:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8), connectivity=4)
        keep = stats[:, cv2.CC_STAT_AREA] >= least
        keep[0] = False
        return keep[labels]

    areas = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)[2][1:, cv2.CC_STAT_AREA]
    largest = float(areas.max()) if len(areas) else 0.0
    return ~drop(~drop(mask, 0.03 * largest), 0.001 * largest)


def _background_scores(
    mask: Bool[np.ndarray, "H W"], seed: Bool[np.ndarray, "H W"], difference: Float[np.ndarray, "H W"], noise: float
) -> dict[str, float]:
    """Score how well the smooth background explains everything outside the mask."""
    if not mask.any():
        return {}
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return {
        "the background is too busy": 1.4 - noise / 10,
        "the object hardly differs from the background": (np.median(difference[mask & ~inside]) - noise) / 12,
        "its outline is ambiguous": 2 * (mask & seed).sum() / (mask | seed).sum() - 0.8,
    }
