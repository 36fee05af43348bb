"""Compares measurements of a training step with their thresholds: what is wrong, and what to change."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from zero123s.config.experiment import HealthConfig
from zero123s.structures import StepDiagnostics

MIN_CELLS = 2
"""Single cells flicker at the edge of an object in any occupancy grid; they are not floaters."""


def measure(diagnostics: StepDiagnostics) -> dict[str, float]:
    """Return the measurements that are available for a step, by name.

    "occupied": share of cells. "components": separate pieces of them. "opacity": mean inside the given silhouette.
    "silhouette_iou": overlap of opacity and silhouette. "guidance_gradient": its norm. "elevation_deg": of the input.
    """
    found: dict[str, float] = {}
    opacity, mask = diagnostics.opacity, diagnostics.mask
    if diagnostics.occupancy is not None:
        found["occupied"] = float(diagnostics.occupancy.float().mean())
        found["components"] = float(count_components(diagnostics.occupancy.cpu().numpy()))
    if opacity is not None and mask is not None:
        inside, shown = mask > 0.5, opacity > 0.5
        if inside.any():
            found["opacity"] = float(opacity[inside].mean())
            found["silhouette_iou"] = float((inside & shown).sum() / (inside | shown).sum())
    if diagnostics.guidance_grad_norm is not None:
        found["guidance_gradient"] = float(diagnostics.guidance_grad_norm)
    if diagnostics.elevation_deg is not None:
        found["elevation_deg"] = diagnostics.elevation_deg
    return found


def count_components(cells: Bool[np.ndarray, "X Y Z"]) -> int:
    """Count connected components of at least MIN_CELLS cells; cells that share a corner are connected."""
    labels, n = ndimage.label(cells, structure=np.ones((3, 3, 3), bool))
    return int((np.bincount(labels.ravel(), minlength=n + 1)[1:] >= MIN_CELLS).sum())


@dataclass(frozen=True)
class Finding:
    """A problem found by one check."""

    name: str
    message: str
    fatal: bool = False
    """If it persists, the run cannot succeed."""


@dataclass
class HealthMonitor:
    """Compares the measurements of a run with their thresholds, over several checks.

    Args:
        cfg: the thresholds.
    """

    cfg: HealthConfig
    best_opacity: float = 0.0
    last_iou: float = 0.0
    in_a_row: dict[str, int] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {"best_opacity": self.best_opacity, "last_iou": self.last_iou, "in_a_row": dict(self.in_a_row)}

    def load(self, state: dict[str, Any]) -> None:
        """Restore the state that `state()` returned."""
        self.best_opacity, self.last_iou = state["best_opacity"], state["last_iou"]
        self.in_a_row = dict(state["in_a_row"])

    def check(self, step: int, measured: dict[str, float]) -> list[Finding]:
        """Return the findings at this step; before `after`, only the elevation is checked."""
        found = _elevation(self.cfg, measured)
        if step >= self.cfg.after:
            found += [*_density(self.cfg, measured), *self._opacity(measured), *self._silhouette(measured)]
            found += [*_floaters(self.cfg, measured), *_guidance(self.cfg, measured)]
        self.best_opacity = max(self.best_opacity, measured.get("opacity", 0.0))
        self.last_iou = measured.get("silhouette_iou", self.last_iou)
        names = {f.name for f in found}
        self.in_a_row = {name: self.in_a_row.get(name, 0) + 1 for name in names}
        return found

    def lost(self, found: list[Finding]) -> Finding | None:
        """Return the fatal finding that the last `lost_after` checks have in common."""
        limit = self.cfg.lost_after
        fatal = [f for f in found if f.fatal and limit and self.in_a_row[f.name] >= limit]
        return fatal[0] if fatal else None

    def _opacity(self, measured: dict[str, float]) -> list[Finding]:
        opacity, best = measured.get("opacity"), self.best_opacity
        if opacity is None:
            return []
        if opacity < self.cfg.min_opacity:
            message = (
                f"the render is empty where the image shows the object: opacity {opacity:.2g} (health.min_opacity="
                f"{self.cfg.min_opacity:g}); raise system.loss.lambda_mask or lower system.loss.lambda_sparsity."
            )
            return [Finding("opacity", message, fatal=True)]
        if opacity < (1 - self.cfg.max_opacity_drop) * best:
            message = (
                f"the object is fading: opacity {opacity:.2g}, after {best:.2g} (health.max_opacity_drop="
                f"{self.cfg.max_opacity_drop:g}); lower system.loss.lambda_sparsity or system.optimizer.args.lr."
            )
            return [Finding("opacity_drop", message)]
        return []

    def _silhouette(self, measured: dict[str, float]) -> list[Finding]:
        iou, cfg = measured.get("silhouette_iou"), self.cfg
        if iou is None or iou >= cfg.min_silhouette_iou or iou - self.last_iou >= cfg.min_silhouette_gain:
            return []
        message = (
            f"the silhouette does not converge to the image's: IoU {iou:.2g}, {self.last_iou:.2g} one check before "
            f"(health.min_silhouette_iou={cfg.min_silhouette_iou:g}); raise system.loss.lambda_mask and check "
            "data.default_elevation_deg, default_fovy_deg and default_camera_distance."
        )
        return [Finding("silhouette_iou", message, fatal=iou < cfg.lost_silhouette_iou)]


def check_mesh(cfg: HealthConfig, silhouette_iou: float | None) -> Finding | None:
    """Return the finding about an exported mesh, given the overlap of its silhouette with the input's mask."""
    if silhouette_iou is None or silhouette_iou >= cfg.min_mesh_silhouette_iou:
        return None
    message = (
        f"the mesh does not fill the image's silhouette: IoU {silhouette_iou:.2f} (health.min_mesh_silhouette_iou="
        f"{cfg.min_mesh_silhouette_iou:g}), parts of it may be missing; look at the mesh from all sides, raise "
        "system.loss.lambda_mask or lower system.loss.lambda_sparsity."
    )
    return Finding("mesh_silhouette", message)


def _density(cfg: HealthConfig, measured: dict[str, float]) -> list[Finding]:
    share = measured.get("occupied")
    if share is None or cfg.min_occupied <= share <= cfg.max_occupied:
        return []
    if share < cfg.min_occupied:
        message = (
            f"the scene is empty: {share:.2%} of the occupancy grid is occupied (health.min_occupied="
            f"{cfg.min_occupied:g}); start denser (system.geometry.density_blob_scale) or lower "
            "system.loss.lambda_sparsity."
        )
        return [Finding("empty", message, fatal=True)]
    message = (
        f"the scene is full of fog: {share:.0%} of the occupancy grid is occupied (health.max_occupied="
        f"{cfg.max_occupied:g}); raise system.loss.lambda_sparsity and lambda_opaque, or start thinner "
        "(system.geometry.density_blob_scale)."
    )
    return [Finding("full", message, fatal=True)]


def _floaters(cfg: HealthConfig, measured: dict[str, float]) -> list[Finding]:
    n = measured.get("components", 0)
    if n <= cfg.max_components:
        return []
    message = (
        f"there are floaters: {n:.0f} separate pieces of occupied space (health.max_components={cfg.max_components}); "
        "raise system.loss.lambda_sparsity or lambda_opaque."
    )
    return [Finding("floaters", message)]


def _guidance(cfg: HealthConfig, measured: dict[str, float]) -> list[Finding]:
    norm = measured.get("guidance_gradient")
    if norm is None or norm >= cfg.min_guidance_gradient:
        return []
    message = (
        f"the guidance has no effect: its gradient has norm {norm:.2g} (health.min_guidance_gradient="
        f"{cfg.min_guidance_gradient:g}); check system.guidance.checkpoint, grad_clip and dtype (fp32 is safe)."
    )
    return [Finding("guidance", message)]


def _elevation(cfg: HealthConfig, measured: dict[str, float]) -> list[Finding]:
    elevation_deg = measured.get("elevation_deg")
    low, high = cfg.elevation_range
    if elevation_deg is None or low <= elevation_deg <= high:
        return []
    message = (
        f"data.default_elevation_deg={elevation_deg:g} is implausible: images are mostly taken from {low:g} to "
        f"{high:g} degrees above the horizon (health.elevation_range), the range Zero123 was trained on; positive is above."
    )
    return [Finding("elevation", message)]
