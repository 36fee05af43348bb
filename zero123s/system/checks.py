"""What the slots of a radiance field system must have in common."""

from typing import Any

from zero123s.errors import ConfigError
from zero123s.geometry import GEOMETRIES
from zero123s.losses import LossWeights
from zero123s.renderer import RENDERERS


def check_sdf(cfg: Any, weights: LossWeights) -> None:
    """Refuse a geometry without signed distance where renderer, loss or first stage need one; raises ConfigError."""
    if GEOMETRIES.get(cfg.geometry_type).has_sdf:
        return
    advice = f"has no signed distance; use geometry_type: implicit-sdf instead of {cfg.geometry_type}."
    if cfg.geometry_convert_from is not None:
        raise ConfigError(f"system.geometry_convert_from needs a surface to start from, and the geometry {advice}")
    if RENDERERS.get(cfg.renderer_type).needs_sdf:
        raise ConfigError(f"system.renderer_type: {cfg.renderer_type} cannot render a geometry that {advice}")
    if weights.ever("eikonal"):
        raise ConfigError(f"system.loss.lambda_eikonal is set, but the geometry {advice}")
