"""Cuts the object out of a photo: by its own transparency, offline from a smooth background, or by a network."""

import logging
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float

from zero123s.errors import ConfigError, ImageError
from zero123s.images.io import LoadedImage
from zero123s.preprocess.grabcut import WORK_SIDE, cut_out_offline
from zero123s.preprocess.mask_confidence import THRESHOLD, edge_scores, lowest_score, shape_scores
from zero123s.preprocess.matte import fill_from_nearest, with_foreground_colours
from zero123s.preprocess.segmentation_networks import rembg_alpha, rembg_is_installed, transformers_alpha
from zero123s.preprocess.transparency import clean_transparency

logger = logging.getLogger(__name__)

NETWORKS = ("rembg", "transformers")
BACKENDS = ("auto", "alpha", "grabcut", *NETWORKS)


@dataclass(frozen=True)
class Segmentation:
    """An object cut out of its photo, at the photo's size."""

    rgba: Float[np.ndarray, "H W 4"]
    """Straight alpha with the object's own colours, also along soft edges."""
    confidence: float
    """0 to 1."""
    method: str
    """"alpha" (the file's own transparency), "grabcut", "rembg" or "transformers"."""
    reason: str = ""
    """Why the confidence is low; empty if it is not."""
    notes: tuple[str, ...] = ()
    """What was changed or should be checked, one sentence each."""
    network_tried: bool = False
    """Whether a segmentation network was tried."""

    @property
    def caption(self) -> str:
        """One line on the method and its confidence."""
        method = "its own transparency" if self.method == "alpha" else self.method
        return f"object found by {method}, confidence {self.confidence:.2f}"


def segment(loaded: LoadedImage, backend: str = "auto", model: str = "") -> Segmentation:
    """Cut the object out of a photo.

    Args:
        loaded: the photo.
        backend: "auto" uses the file's transparency where there is some, else `grabcut`, and where its confidence is
            below THRESHOLD rembg, if that is installed: the more confident of the two masks is returned. "rembg" and
            "transformers" are networks.
        model: for "transformers" a model id or folder (image segmentation or matting, such as BiRefNet); for "rembg" a
            model name.

    Returns:
        The object in straight alpha, the confidence of its mask, and the reason of a low one.

    Raises:
        ConfigError: unknown backend, or "transformers" without `model`.
        ImageError: "alpha" for an image without transparency or with nothing opaque in it, or a model that cannot be
            loaded.
        MissingDependencyError: the backend's package is not installed.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"segmentation backend '{backend}' is unknown; choose one of {', '.join(BACKENDS)}.")
    if backend == "alpha" and not loaded.has_alpha:
        raise ImageError("The image has no transparent part to use; choose another segmentation backend.")
    if backend == "alpha" or (backend == "auto" and loaded.has_alpha):
        rgba, confidence, reason, notes = clean_transparency(loaded.rgba)
        return Segmentation(rgba, confidence, "alpha", reason, notes)
    rgb = loaded.rgba[..., :3]
    if backend in NETWORKS:
        return _by_network(rgb, backend, model)
    rgba, confidence, reason = cut_out_offline(rgb)
    found = Segmentation(rgba, confidence, "grabcut", reason)
    if backend == "grabcut" or confidence >= THRESHOLD or not rembg_is_installed():
        return found
    logger.warning("GrabCut is not sure of the object (%s, confidence %.2f); trying rembg.", reason, confidence)
    try:
        other = _by_network(rgb, "rembg", model)
    except ImageError as error:  # its weights are unavailable: GrabCut's mask is used as without rembg
        return replace(found, notes=(str(error),), network_tried=True)
    return replace(other if other.confidence > found.confidence else found, network_tried=True)


def _by_network(rgb: Float[np.ndarray, "H W 3"], backend: str, model: str) -> Segmentation:
    alpha = rembg_alpha(rgb, model) if backend == "rembg" else transformers_alpha(rgb, model)
    height, width = alpha.shape
    shrink = min(1.0, WORK_SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small_alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    mask = small_alpha > 0.5
    scores = shape_scores(mask) | edge_scores(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), mask)
    scores["many pixels are undecided"] = float(np.abs(2 * alpha - 1).mean())
    confidence, reason = lowest_score(scores)
    # A network gives no background colour: extend the colours around the object inwards.
    background = fill_from_nearest(rgb, alpha < 0.05)
    return Segmentation(with_foreground_colours(rgb, alpha, background), confidence, backend, reason, (), True)
