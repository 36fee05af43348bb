"""Settings of a radiance field system: its slots, and what happens when."""

from dataclasses import dataclass, field, fields
from typing import Any

from zero123s.background import BACKGROUNDS
from zero123s.config.options import option
from zero123s.exporter import EXPORTERS
from zero123s.geometry import GEOMETRIES
from zero123s.guidance import GUIDANCES
from zero123s.material import MATERIALS
from zero123s.renderer import RENDERERS
from zero123s.system.loggers import LoggersConfig
from zero123s.system.optimizers import OptimizerConfig, SchedulerConfig

SLOTS = {
    "geometry": GEOMETRIES,
    "material": MATERIALS,
    "background": BACKGROUNDS,
    "renderer": RENDERERS,
    "guidance": GUIDANCES,
    "exporter": EXPORTERS,
}


@dataclass
class FreqConfig:
    """How often what happens, in steps."""

    ref_only_steps: int = option(0, low=0)
    """Steps at the start that only supervise the reference view."""
    guidance_eval: int = option(0, low=0)
    """Steps between images of the guidance's input and prediction; 0 = never."""
    ref_or_zero123: str = option("accumulate", choices=("accumulate", "alternate"))
    """"accumulate": every step does both; "alternate": one or the other."""
    n_ref: int = option(2, low=1)
    """With "alternate": every n-th step supervises the reference view."""


@dataclass
class FieldSystemConfig:
    """Settings of all systems of geometry, material, background, renderer, guidance and exporter."""

    geometry_type: str = "implicit-volume"
    """Registered geometry."""
    geometry: Any = field(default_factory=dict)
    """Its settings."""
    weights: str | None = option(None, path=True)
    """Checkpoint of another run whose parameters this one starts from, at step 0; what it lacks stays as initialised."""
    weights_ignore_modules: list[str] = field(default_factory=list)
    """Modules that do not start from `weights`, such as material."""
    geometry_convert_from: str | None = option(None, path=True)
    """Run folder or checkpoint of a first stage: this run inherits its settings, and its geometry (which needs a
    signed distance: implicit-sdf) starts from that one's surface and colours."""
    geometry_convert_inherit_texture: bool = True
    """Take over the first stage's colours, too."""
    geometry_convert_override: dict[str, Any] = field(default_factory=dict)
    """Settings that replace the first stage's geometry's own, such as isosurface_threshold."""
    material_type: str = "diffuse-with-point-light-material"
    """Registered material."""
    material: Any = field(default_factory=dict)
    """Its settings."""
    background_type: str = "solid-color-background"
    """Registered background."""
    background: Any = field(default_factory=dict)
    """Its settings."""
    renderer_type: str = "nerf-volume-renderer"
    """Registered renderer."""
    renderer: Any = field(default_factory=dict)
    """Its settings."""
    guidance_type: str = "stable-zero123-guidance"
    """Registered guidance; only built when lambda_sds is ever above zero."""
    guidance: Any = field(default_factory=dict)
    """Its settings."""
    exporter_type: str = "mesh-exporter"
    """Registered exporter."""
    exporter: Any = field(default_factory=dict)
    """Its settings."""
    freq: FreqConfig = field(default_factory=FreqConfig)
    """Frequencies."""
    loss: Any = field(default_factory=dict)
    """Weights of the loss terms, lambda_<name>."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser."""
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    """Learning rate scheduler."""
    loggers: LoggersConfig = field(default_factory=LoggersConfig)
    """Extra loggers."""
    ambient_ratio_min: float | None = option(0.5, low=0.0, high=1.0)
    """Smallest share of ambient light on random views, drawn between it and 1; null = the material's own lights."""
    regularized_views: str = option("both", choices=("both", "novel"))
    """Views of the regularisers that apply to both passes: reference and random ones, or random ones alone, as in Magic123."""
    guidance_input: str = option("rgb", choices=("rgb", "normal", "latents"))
    """Input of the guidance from a random view: its colours, its normals (a stage for the geometry alone), or its colours
    taken as latents of the guiding model (Latent-NeRF)."""
    refinement: bool = False
    """Second stage: the terms against fog, orient, sparsity and opaque, are off on all passes."""


def slot_names(cfg: FieldSystemConfig) -> dict[str, str]:
    """Return slot -> registered name, for summaries."""
    return {f.name.removesuffix("_type"): getattr(cfg, f.name) for f in fields(cfg) if f.name.endswith("_type")}
