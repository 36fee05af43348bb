"""Vital signs of a run against their thresholds: what is wrong, and what to change."""

from dataclasses import dataclass, field
from typing import Any

from zero123s.config.experiment import HealthConfig


@dataclass(frozen=True)
class Finding:
    """Something that is wrong at one look."""

    name: str
    sentence: str
    hopeless: bool = False
    """If it stays, the run cannot end well."""


@dataclass
class Watch:
    """Judges the signs of a run, look by look.

    Args:
        cfg: the thresholds.
    """

    cfg: HealthConfig
    best_opacity: float = 0.0
    last_iou: float = 0.0
    in_a_row: dict[str, int] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"best_opacity": self.best_opacity, "last_iou": self.last_iou, "in_a_row": dict(self.in_a_row)}

    def load(self, state: dict[str, Any]) -> None:
        """Take up where `state()` was written."""
        self.best_opacity, self.last_iou = state["best_opacity"], state["last_iou"]
        self.in_a_row = dict(state["in_a_row"])

    def look(self, step: int, signs: dict[str, float]) -> list[Finding]:
        """Return what is wrong at this step; nothing but the elevation is judged before `after`."""
        found = _elevation(self.cfg, signs)
        if step >= self.cfg.after:
            found += [*_density(self.cfg, signs), *self._opacity(signs), *self._silhouette(signs)]
            found += [*_floaters(self.cfg, signs), *_guidance(self.cfg, signs)]
        self.best_opacity = max(self.best_opacity, signs.get("opacity", 0.0))
        self.last_iou = signs.get("silhouette_iou", self.last_iou)
        names = {f.name for f in found}
        self.in_a_row = {name: self.in_a_row.get(name, 0) + 1 for name in names}
        return found

    def lost(self, found: list[Finding]) -> Finding | None:
        """Return the hopeless finding that was there at the last `lost_after` looks."""
        limit = self.cfg.lost_after
        hopeless = [f for f in found if f.hopeless and limit and self.in_a_row[f.name] >= limit]
        return hopeless[0] if hopeless else None

    def _opacity(self, signs: dict[str, float]) -> list[Finding]:
        opacity, best = signs.get("opacity"), self.best_opacity
        if opacity is None:
            return []
        if opacity < self.cfg.min_opacity:
            sentence = (
                f"nothing is to be seen where the picture shows the object: opacity {opacity:.2g} (health.min_opacity="
                f"{self.cfg.min_opacity:g}); raise system.loss.lambda_mask or lower system.loss.lambda_sparsity."
            )
            return [Finding("opacity", sentence, hopeless=True)]
        if opacity < (1 - self.cfg.max_opacity_drop) * best:
            sentence = (
                f"the object is fading: opacity {opacity:.2g}, after {best:.2g} (health.max_opacity_drop="
                f"{self.cfg.max_opacity_drop:g}); lower system.loss.lambda_sparsity or system.optimizer.args.lr."
            )
            return [Finding("opacity_drop", sentence)]
        return []

    def _silhouette(self, signs: dict[str, float]) -> list[Finding]:
        iou, cfg = signs.get("silhouette_iou"), self.cfg
        if iou is None or iou >= cfg.min_silhouette_iou or iou - self.last_iou >= cfg.min_silhouette_gain:
            return []
        sentence = (
            f"the silhouette does not come to fit the picture: IoU {iou:.2g}, {self.last_iou:.2g} one look before "
            f"(health.min_silhouette_iou={cfg.min_silhouette_iou:g}); raise system.loss.lambda_mask and check "
            "data.default_elevation_deg, default_fovy_deg and default_camera_distance."
        )
        return [Finding("silhouette_iou", sentence, hopeless=iou < cfg.lost_silhouette_iou)]


def _density(cfg: HealthConfig, signs: dict[str, float]) -> list[Finding]:
    share = signs.get("occupied")
    if share is None or cfg.min_occupied <= share <= cfg.max_occupied:
        return []
    if share < cfg.min_occupied:
        sentence = (
            f"the scene is empty: {share:.2%} of the occupancy grid is occupied (health.min_occupied="
            f"{cfg.min_occupied:g}); start denser (system.geometry.density_blob_scale) or lower "
            "system.loss.lambda_sparsity."
        )
        return [Finding("empty", sentence, hopeless=True)]
    sentence = (
        f"the scene is full of fog: {share:.0%} of the occupancy grid is occupied (health.max_occupied="
        f"{cfg.max_occupied:g}); raise system.loss.lambda_sparsity and lambda_opaque, or start thinner "
        "(system.geometry.density_blob_scale)."
    )
    return [Finding("full", sentence, hopeless=True)]


def _floaters(cfg: HealthConfig, signs: dict[str, float]) -> list[Finding]:
    n = signs.get("components", 0)
    if n <= cfg.max_components:
        return []
    sentence = (
        f"there are floaters: {n:.0f} separate pieces of occupied space (health.max_components={cfg.max_components}); "
        "raise system.loss.lambda_sparsity or lambda_opaque."
    )
    return [Finding("floaters", sentence)]


def _guidance(cfg: HealthConfig, signs: dict[str, float]) -> list[Finding]:
    norm = signs.get("guidance_gradient")
    if norm is None or norm >= cfg.min_guidance_gradient:
        return []
    sentence = (
        f"the guidance says nothing: its gradient has norm {norm:.2g} (health.min_guidance_gradient="
        f"{cfg.min_guidance_gradient:g}); check system.guidance.checkpoint, grad_clip and dtype (fp32 is safe)."
    )
    return [Finding("guidance", sentence)]


def _elevation(cfg: HealthConfig, signs: dict[str, float]) -> list[Finding]:
    elevation_deg = signs.get("elevation_deg")
    low, high = cfg.elevation_range
    if elevation_deg is None or low <= elevation_deg <= high:
        return []
    sentence = (
        f"data.default_elevation_deg={elevation_deg:g} is implausible: pictures are mostly taken from {low:g} to "
        f"{high:g} degrees above the horizon (health.elevation_range), and Zero123 knows no others; positive is above."
    )
    return [Finding("elevation", sentence)]
