"""What the slots of a radiance field system must have in common."""

from typing import Any

from zero123s.data.base import BaseData
from zero123s.errors import ConfigError
from zero123s.geometry import GEOMETRIES
from zero123s.losses import TERMS, LossWeights
from zero123s.renderer import RENDERERS

FEWEST_OF_MODEL = 4
"""Threestudio's recipe begins with a quarter of the edge that the model sees."""


def check_sdf(cfg: Any, weights: LossWeights) -> None:
    """Refuse a geometry without signed distance where renderer, loss or first stage need one; raises ConfigError."""
    if GEOMETRIES.get(cfg.geometry_type).has_sdf:
        return
    if cfg.geometry_convert_from is not None and GEOMETRIES.get(cfg.geometry_type).has_gaussians:
        return  # they stand on the first stage's surface; `check_gaussians` looks at the rest
    advice = f"has no signed distance; use geometry_type: implicit-sdf instead of {cfg.geometry_type}."
    if cfg.geometry_convert_from is not None:
        raise ConfigError(f"system.geometry_convert_from needs a surface to start from, and the geometry {advice}")
    if RENDERERS.get(cfg.renderer_type).needs_sdf:
        raise ConfigError(f"system.renderer_type: {cfg.renderer_type} cannot render a geometry that {advice}")
    if weights.ever("eikonal"):
        raise ConfigError(f"system.loss.lambda_eikonal is set, but the geometry {advice}")


def check_gaussians(cfg: Any, weights: LossWeights) -> None:
    """Refuse Gaussians without their renderer, the renderer without Gaussians, and losses of samples; raises ConfigError."""
    geometry, renderer = GEOMETRIES.get(cfg.geometry_type), RENDERERS.get(cfg.renderer_type)
    if geometry.has_gaussians and not renderer.needs_gaussians:
        raise ConfigError(
            f"system.renderer_type: {cfg.renderer_type} marches through a field, which {cfg.geometry_type} trains "
            "nothing by; use renderer_type: gaussian-rasterizer."
        )
    if renderer.needs_gaussians and not geometry.has_gaussians:
        raise ConfigError(
            f"system.renderer_type: {cfg.renderer_type} renders Gaussians only; use geometry_type: gaussians instead of "
            f"{cfg.geometry_type}."
        )
    if not renderer.has_samples:
        for name, term in TERMS.items():
            if weights.ever(name) and term.needs - {"normal"}:
                raise ConfigError(
                    f"system.loss.lambda_{name} needs samples along rays, which {cfg.renderer_type} does not have; set it "
                    "to 0."
                )


def check_surface_terms(cfg: Any, weights: LossWeights) -> None:
    """Refuse losses of a mesh where the renderer has none; raises ConfigError."""
    if RENDERERS.get(cfg.renderer_type).has_mesh:
        return
    for name, term in TERMS.items():
        if weights.ever(name) and "mesh" in term.needs:
            raise ConfigError(
                f"system.loss.lambda_{name} is a loss of the mesh that a mesh-rasterizer renders, and "
                f"system.renderer_type is {cfg.renderer_type}; set it to 0."
            )


def check_colors(cfg: Any) -> None:
    """Refuse colours that are not as many as background and guidance need; raises ConfigError."""
    channels = getattr(cfg.material, "n_output_dims", 3)
    behind = getattr(cfg.background, "n_output_dims", 3)
    if channels != behind:
        raise ConfigError(
            f"system.material has {channels} colours and system.background {behind}; give both the same n_output_dims."
        )
    if cfg.guidance_input == "latents" and channels != 4:
        raise ConfigError(
            f"system.guidance_input: latents have 4 channels, and the material delivers {channels}; set n_output_dims of "
            "material and background, and system.geometry.n_feature_dims, to 4."
        )


def check_novel_sizes(data: BaseData, sees_squares: bool) -> None:
    """Refuse views that a guidance would squeeze to a square; raises ConfigError."""
    for height, width in data.novel_sizes():
        if sees_squares and height != width:
            raise ConfigError(
                f"data.random_camera.height, width: views of {width}x{height} pixels would be squeezed to the square "
                "that the guidance sees; give both the same."
            )


def novel_size_notes(data: BaseData, image_size: int | None) -> list[str]:
    """Return sentences about views that are rendered far smaller than a guidance's networks see them, or larger.

    Args:
        image_size: edge in pixels of what the networks see; None = not known.
    """
    edges = [height for height, _ in data.novel_sizes()]
    if not edges or image_size is None:
        return []
    notes = []
    if (small := min(edges)) * FEWEST_OF_MODEL < image_size:
        notes.append(
            f"views of {small} pixels are enlarged to the {image_size} that the guiding model sees: it judges a blur; "
            f"data.random_camera.height and width of {image_size // FEWEST_OF_MODEL} or more are usual."
        )
    if (large := max(edges)) > image_size:
        notes.append(
            f"views of {large} pixels are shrunk to the {image_size} that the guiding model sees: rendering them takes "
            f"{(large / image_size) ** 2:.3g} times as many pixels; data.random_camera.height and width of {image_size} "
            "are enough for it."
        )
    return notes
