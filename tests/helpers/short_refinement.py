"""The fit of a second stage to the surface of its first, shortened to a second."""

import pytest

from zero123s.system import refinement


def shorten_refinement(patch: pytest.MonkeyPatch, steps: int, batch: int = 1024, resolution: int = 32) -> None:
    """Fit with few steps, to few points of a coarse surface; what the full fit is worth is measured, not tested."""
    patch.setattr(refinement, "STEPS", steps)
    patch.setattr(refinement, "BATCH", batch)
    patch.setattr(refinement, "NEAR_POOL", 20 * batch)
    patch.setattr(refinement, "FAR_POOL", batch)
    patch.setattr(refinement, "RESOLUTION", resolution)
    patch.setattr(refinement._NearDistance, "CELLS", 16)
