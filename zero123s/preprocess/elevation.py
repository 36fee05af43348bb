"""Estimates the elevation from which an image was taken.

Zero123 itself is hardly informative: its denoising error, views predicted forth and back, and how upright the small
model's lifted solid stands are little better than a constant (docs/inputs.md has the figures). A separate small network,
trained on the renders that the bundled Zero123 was trained on, estimates it for every checkpoint.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float

from zero123s.diffusion.checkpoint.locate import REPOSITORY
from zero123s.images.io import fit_square, resize_rgba
from zero123s.preprocess.elevation_net import CANDIDATES_DEG, ElevationNet, framed, load_elevation_net

WEIGHTS = "load/elevation_net.safetensors"
READ_SIZE = 128
"""Pixels to which an image is resized before framing: twice the input resolution of the network."""
MIN_CONFIDENCE = 0.5
"""Confidence below which a warning is given."""


@dataclass(frozen=True)
class ElevationEstimate:
    """An estimated elevation and its confidence."""

    elevation_deg: float
    confidence: float
    """0 to 1: one minus the scores' standard deviation relative to that of a uniform distribution."""
    scores: tuple[float, ...]
    """One for each of CANDIDATES_DEG; they add up to 1."""
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """Describe the estimate in one sentence for the user.

        Returns:
            Elevation, confidence, and how to override it.
        """
        return (
            f"elevation {self.elevation_deg:.0f} degrees, estimated from the image (confidence {self.confidence:.2f}); "
            "a number in data.default_elevation_deg overrules it."
        )

    def record(self) -> dict[str, Any]:
        """Describe the estimate for run.json and the report.

        Returns:
            JSON-ready: elevation_deg, confidence, candidates_deg, scores, warnings.
        """
        return {
            "elevation_deg": round(self.elevation_deg, 1),
            "confidence": round(self.confidence, 3),
            "candidates_deg": list(CANDIDATES_DEG),
            "scores": [round(s, 4) for s in self.scores],
            "warnings": list(self.warnings),
        }


@torch.no_grad()
def estimate_elevation(rgba: Float[np.ndarray, "H W 4"], net: ElevationNet | None = None) -> ElevationEstimate:
    """Estimate the elevation of the camera from an image with transparency.

    Args:
        rgba: H W 4, straight alpha in [0, 1]; the object may lie anywhere in the frame.
        net: the network; None loads the bundled weights.

    Returns:
        The estimate in degrees, its confidence and the score of every candidate.

    Raises:
        CheckpointError: the bundled weights are missing or damaged.
    """
    net = net or load_elevation_net(REPOSITORY / WEIGHTS)
    image = torch.from_numpy(resize_rgba(fit_square(rgba), READ_SIZE, READ_SIZE)).permute(2, 0, 1)[None]
    return from_scores(torch.softmax(net(framed(image))[0], dim=0).double().numpy())


def from_scores(scores: Float[np.ndarray, "C"]) -> ElevationEstimate:
    """Estimate the elevation as the median of normalised scores.

    Args:
        scores: C, one for each of CANDIDATES_DEG, summing to 1.

    Returns:
        The estimate, with a warning if its confidence is low.

    Example:
        >>> import numpy as np
        >>> from zero123s.preprocess.elevation import CANDIDATES_DEG, from_scores
        >>> scores = (np.array(CANDIDATES_DEG) == 30).astype(float)
        >>> estimate = from_scores(scores)
        >>> round(estimate.elevation_deg, 6), estimate.confidence
        (30.0, 1.0)
    """
    candidates = np.array(CANDIDATES_DEG)
    step = candidates[1] - candidates[0]
    # Each candidate stands for the span around it.
    edges = np.concatenate([candidates - step / 2, candidates[-1:] + step / 2])
    median = float(np.interp(0.5, np.concatenate([[0.0], np.cumsum(scores)]), edges))
    spread = float(np.sqrt(scores @ (candidates - scores @ candidates) ** 2))
    confidence = float(np.clip(1 - spread / candidates.std(), 0, 1))
    warnings: tuple[str, ...] = ()
    if confidence < MIN_CONFIDENCE:
        warnings = (
            f"the elevation cannot be estimated well from this image (confidence {confidence:.2f}): compare the side views "
            "of the preview, and give data.default_elevation_deg as a number if the object leans.",
        )
    return ElevationEstimate(median, confidence, tuple(float(s) for s in scores), warnings)


def score_panel(estimate: ElevationEstimate, size: int = 256) -> Float[np.ndarray, "S S 3"]:
    """Plot the scores over the elevation, with the estimate as a vertical line.

    Args:
        estimate: the estimate.
        size: edge S in pixels.

    Returns:
        S S 3 in [0, 1].
    """
    panel = np.full((size, size, 3), 255, np.uint8)
    scores = np.array(estimate.scores)
    span = max(float(np.ptp(scores)), 1e-6)
    column = lambda e: round(16 + (size - 32) * (e - CANDIDATES_DEG[0]) / (CANDIDATES_DEG[-1] - CANDIDATES_DEG[0]))  # noqa: E731
    row = lambda s: round(size - 40 - (size - 80) * (s - scores.min()) / span)  # noqa: E731
    points = np.array([[column(e), row(s)] for e, s in zip(CANDIDATES_DEG, scores, strict=True)], np.int32)
    x = column(estimate.elevation_deg)
    cv2.line(panel, (x, 30), (x, size - 30), (220, 60, 30), 1)
    cv2.polylines(panel, [points], False, (37, 99, 235), 2, cv2.LINE_AA)
    caption = f"elevation {estimate.elevation_deg:.0f}, confidence {estimate.confidence:.2f}"
    for text, at in (
        (caption, (8, 18)),
        (f"{CANDIDATES_DEG[0]:.0f}", (8, size - 10)),
        (f"{CANDIDATES_DEG[-1]:.0f}", (size - 30, size - 10)),
    ):
        cv2.putText(panel, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return panel.astype(np.float32) / 255
