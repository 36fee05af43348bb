"""The slots of a radiance field system: their sections in the YAML file, and what they must have in common."""

from dataclasses import dataclass, field, fields
from typing import Any

from zero123s.background import BACKGROUNDS
from zero123s.config.options import option
from zero123s.config.parse import parse, parse_slot
from zero123s.data.base import BaseData
from zero123s.errors import ConfigError
from zero123s.exporter import EXPORTERS
from zero123s.geometry import GEOMETRIES
from zero123s.guidance import GUIDANCES
from zero123s.losses import TERMS, LossWeights, loss_config
from zero123s.material import MATERIALS
from zero123s.renderer import RENDERERS
from zero123s.system.base import BaseSystem
from zero123s.system.exposure import guidance_exposure
from zero123s.system.optimizers import OptimizerConfig, SchedulerConfig
from zero123s.system.warm_start import WarmStartConfig, check_warm_start

SLOTS = {
    "geometry": GEOMETRIES,
    "material": MATERIALS,
    "background": BACKGROUNDS,
    "renderer": RENDERERS,
    "guidance": GUIDANCES,
    "exporter": EXPORTERS,
}
MODEL_SIZE_DIVISOR = 4
"""Threestudio's recipe starts with a quarter of the edge of the model's input."""


@dataclass
class FreqConfig:
    """Frequencies, in steps."""

    ref_only_steps: int = option(0, low=0)
    """Steps at the start that only supervise the reference view."""
    guidance_eval: int = option(0, low=0)
    """Steps between images of the guidance's input and prediction; 0 = never."""
    ref_or_zero123: str = option("accumulate", choices=("accumulate", "alternate"))
    """"accumulate": every step does both; "alternate": one or the other."""
    n_ref: int = option(2, low=1)
    """With "alternate": every n-th step supervises the reference view."""
    normals_every: int = option(1, low=1, high=100)
    """n: the loss terms on rendered normals (orient, normal_smooth, 3d_normal_smooth, ...) count in every n-th step of a
    pass, n-fold, and the steps between render no normals; reference and novel passes take turns."""


@dataclass
class WandbConfig:
    """Weights & Biases."""

    enable: bool = False
    """Also log there; needs the wandb package."""
    project: str = "zero123s"
    """Project name."""


@dataclass
class LoggersConfig:
    """Loggers besides TensorBoard and CSV, which are always on."""

    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""


@dataclass
class FieldSystemConfig(BaseSystem.Config):
    """Settings of all systems of geometry, material, background, renderer, guidance and exporter."""

    geometry_type: str = "implicit-volume"
    """Registered geometry."""
    geometry: Any = field(default_factory=dict)
    """Its settings."""
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    """What a new run starts from, where it has neither `weights` nor `geometry_convert_from`."""
    weights: str | None = option(None, path=True)
    """Checkpoint of another run whose parameters this one starts from, at step 0; missing ones stay as initialised."""
    weights_ignore_modules: list[str] = field(default_factory=list)
    """Modules that do not start from `weights`, such as material."""
    geometry_convert_from: str | None = option(None, path=True)
    """Run folder or checkpoint of a first stage: this run inherits its settings, and its geometry (which needs a
    signed distance: implicit-sdf) starts from that one's surface and colours."""
    geometry_convert_inherit_texture: bool = True
    """Also inherit the first stage's colours."""
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
    """Smallest share of ambient light on random views, drawn from [it, 1]; null = the material's own lights."""
    regularized_views: str = option("both", choices=("both", "novel"))
    """Passes of the regularisers that apply to both: reference and random ones, or random ones alone, as in Magic123.
    """
    guidance_input: str = option("rgb", choices=("rgb", "normal", "latents"))
    """Input of the guidance from a random view: its colours, its normals (a stage for the geometry alone), or its colours
    taken as latents of the guiding model (Latent-NeRF)."""
    guidance_exposure: Any = 1.0
    """Factor on the object's colours in the input view and renderings that the guidance is given, or "auto": 1 for most
    objects, less for bright ones, whose outline is lost on the white background of Zero123's images."""
    refinement: bool = False
    """Second stage: disable the terms against fog (orient, sparsity, opaque) on all passes."""

    def slot_names(self) -> dict[str, str]:
        """Return slot -> registered name, for summaries."""
        return {f.name.removesuffix("_type"): getattr(self, f.name) for f in fields(self) if f.name.endswith("_type")}


def check_slots(cfg: Any) -> None:
    """Check the sections of all slots and of the losses, in place, and whether they fit together; raises ConfigError."""
    for slot, registry in SLOTS.items():
        _, section = parse_slot(registry, getattr(cfg, f"{slot}_type"), getattr(cfg, slot), f"system.{slot}")
        setattr(cfg, slot, section)
    GUIDANCES.get(cfg.guidance_type).check(cfg.guidance)
    cfg.loss = parse(loss_config(GEOMETRIES.get(cfg.geometry_type).regularization_terms), cfg.loss, "system.loss")
    weights = LossWeights(cfg.loss)
    check_normals_every(cfg.freq)
    check_sdf(cfg, weights)
    check_gaussians(cfg, weights)
    check_surface_terms(cfg, weights)
    check_colors(cfg)
    check_warm_start(cfg, weights.is_ever_used("sds"))
    guidance_exposure(cfg.guidance_exposure, None, cfg.guidance_input)


def check_normals_every(freq: FreqConfig) -> None:
    """Refuse pauses of the terms on normals where the passes themselves pause; raises ConfigError."""
    if freq.normals_every > 1 and freq.ref_or_zero123 == "alternate":
        raise ConfigError(
            f"system.freq.normals_every: {freq.normals_every} counts steps that have both passes, and ref_or_zero123: "
            "alternate has none; leave one of them at its default."
        )


def check_sdf(cfg: Any, weights: LossWeights) -> None:
    """Refuse a geometry without signed distance if renderer, loss or first stage needs one; raises ConfigError."""
    if GEOMETRIES.get(cfg.geometry_type).has_sdf:
        return
    if cfg.geometry_convert_from is not None and GEOMETRIES.get(cfg.geometry_type).has_gaussians:
        return  # they stand on the first stage's surface; `check_gaussians` checks the rest
    advice = f"has no signed distance; use geometry_type: implicit-sdf instead of {cfg.geometry_type}."
    if cfg.geometry_convert_from is not None:
        raise ConfigError(f"system.geometry_convert_from needs a surface to start from, and the geometry {advice}")
    if RENDERERS.get(cfg.renderer_type).needs_sdf:
        raise ConfigError(f"system.renderer_type: {cfg.renderer_type} cannot render a geometry that {advice}")
    if weights.is_ever_used("eikonal"):
        raise ConfigError(f"system.loss.lambda_eikonal is set, but the geometry {advice}")


def check_gaussians(cfg: Any, weights: LossWeights) -> None:
    """Refuse Gaussians without their renderer, the renderer without them, and sample losses; raises ConfigError."""
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
            if weights.is_ever_used(name) and term.needs - {"normal"}:
                raise ConfigError(
                    f"system.loss.lambda_{name} needs samples along rays, which {cfg.renderer_type} does not have; set it "
                    "to 0."
                )


def check_surface_terms(cfg: Any, weights: LossWeights) -> None:
    """Refuse losses on a mesh if the renderer has none; raises ConfigError."""
    if RENDERERS.get(cfg.renderer_type).has_mesh:
        return
    for name, term in TERMS.items():
        if weights.is_ever_used(name) and "mesh" in term.needs:
            raise ConfigError(
                f"system.loss.lambda_{name} is a loss of the mesh that a mesh-rasterizer renders, and "
                f"system.renderer_type is {cfg.renderer_type}; set it to 0."
            )


def check_colors(cfg: Any) -> None:
    """Refuse a number of colour channels other than background and guidance need; raises ConfigError."""
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


def check_novel_sizes(data: BaseData, resizes_to_square: bool) -> None:
    """Refuse views that a guidance would distort to a square; raises ConfigError."""
    for height, width in data.novel_sizes():
        if resizes_to_square and height != width:
            raise ConfigError(
                f"data.random_camera.height, width: views of {width}x{height} pixels would be squeezed to the square "
                "input of the guidance; set both to the same."
            )


def novel_size_notes(data: BaseData, image_size: int | None) -> list[str]:
    """Return notes on views rendered much smaller or larger than the input of the guidance's networks.

    Args:
        image_size: input resolution of the networks in pixels; None = not known.
    """
    edges = [height for height, _ in data.novel_sizes()]
    if not edges or image_size is None:
        return []
    notes = []
    if (small := min(edges)) * MODEL_SIZE_DIVISOR < image_size:
        notes.append(
            f"views of {small} pixels are enlarged to the guidance model's input of {image_size}, which is then blurred; "
            f"data.random_camera.height and width of {image_size // MODEL_SIZE_DIVISOR} or more are usual."
        )
    if (large := max(edges)) > image_size:
        notes.append(
            f"views of {large} pixels are downsampled to the guidance model's input of {image_size}: rendering them takes "
            f"{(large / image_size) ** 2:.3g} times as many pixels; data.random_camera.height and width of {image_size} "
            "are enough for it."
        )
    return notes
