"""What tells, at little cost, whether a radiance field is on its way to an object."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

MIN_CELLS = 2
"""A single cell that comes and goes is how an occupancy grid looks at the edge of an object, no floater."""


@dataclass
class Seen:
    """Tensors of the last step that are kept until somebody asks; nothing is computed of them before."""

    opacity: Float[Tensor, "B H W 1"] | None = None
    mask: Float[Tensor, "B H W 1"] | None = None
    guidance_gradient: Float[Tensor, ""] | None = None


def vital_signs(
    seen: Seen, occupied: Bool[Tensor, "X Y Z"] | None = None, elevation_deg: float | None = None
) -> dict[str, float]:
    """Return the signs that are known, by name.

    "occupied": share of cells. "components": separate pieces of them. "opacity": mean inside the picture's silhouette.
    "silhouette_iou": overlap of opacity and silhouette. "guidance_gradient": its norm. "elevation_deg": of the input.
    """
    signs: dict[str, float] = {}
    if occupied is not None:
        signs["occupied"] = float(occupied.float().mean())
        signs["components"] = float(count_components(occupied.cpu().numpy()))
    if seen.opacity is not None and seen.mask is not None:
        inside, shown = seen.mask > 0.5, seen.opacity > 0.5
        if inside.any():
            signs["opacity"] = float(seen.opacity[inside].mean())
            signs["silhouette_iou"] = float((inside & shown).sum() / (inside | shown).sum())
    if seen.guidance_gradient is not None:
        signs["guidance_gradient"] = float(seen.guidance_gradient)
    if elevation_deg is not None:
        signs["elevation_deg"] = elevation_deg
    return signs


def count_components(cells: Bool[np.ndarray, "X Y Z"]) -> int:
    """Return how many pieces of at least MIN_CELLS cells there are; cells that share a corner belong together."""
    labels, n = ndimage.label(cells, structure=np.ones((3, 3, 3), bool))
    return int((np.bincount(labels.ravel(), minlength=n + 1)[1:] >= MIN_CELLS).sum())
