"""Warm starts: a new run starts from a predicted volume of the object, or from views sampled by the guiding model."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.config.options import option
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.checkpoint.locate import BUNDLED, locate_bundled
from zero123s.errors import ConfigError, MeshError
from zero123s.guidance.lifted_field import LiftedField, lift_views
from zero123s.mesh.silhouette import outside_visual_hull
from zero123s.structures import RadianceField, ReferenceView
from zero123s.system.exposure import UnexposedField, expose_views, guidance_exposure
from zero123s.system.refinement import start_from_surface
from zero123s.system.warm_views import sample_warm_views

logger = logging.getLogger(__name__)

System = Any
"""A `Zero123System`; its module imports this one."""

POOL = 2**17
"""Points in the scene's cube at which the predicted field is evaluated, once, for all batches."""
BATCH = 8192
LEARNING_RATE = 0.01
STEP_LENGTH = 0.02
"""World units over which densities are compared as opacities, which saturate: very high densities need not match."""
MIN_OPACITY = 0.02
"""Opacity of a step from which a point counts as occupied; half of every batch is."""


@dataclass
class WarmStartConfig:
    """What a new run starts from."""

    type: str = option("none", choices=("none", "auto", "lift", "views"))
    """"none": as the geometry's settings say; "lift": fit the geometry, before step 0, to the volume that a pose lift predicts
    from the input image: the guiding model's, or the bundled small model's where it has none, as Stable Zero123; "auto":
    "lift" where there is an input image and an object is predicted, else "none"; "views": views sampled by the guiding
    model, any Zero123, also supervise the first steps."""
    steps: int = option(300, low=1, high=100_000)
    """lift: optimiser steps of the fit of a density; signed distances and Gaussians start from the volume's surface."""
    n_views: int = option(8, low=1, high=64)
    """views: how many, evenly around the input view."""
    elevations_deg: list[float] = option([0.0, 30.0], low=-90.0, high=90.0)
    """views: their elevations, one after the other."""
    sampling_steps: int = option(30, low=1, high=1000)
    """views: DDIM steps of each."""
    weight: Any = option([0, 300.0, 0.0, 150], low=0.0, schedule=True)
    """views: weight of the mean squared error of one randomly chosen view per step, times (1 + cos) / 2 of its angle to the
    nearest input view; number or schedule."""


@dataclass(frozen=True)
class _Targets:
    points: Float[Tensor, "P 3"]
    opacity: Float[Tensor, "P"]
    rgb: Float[Tensor, "P 3"]
    occupied: Tensor


def warm_start(system: System) -> dict[str, Any]:
    """Start a new run as `system.warm_start` says.

    Returns:
        Its entry in run.json; empty without a warm start.

    Raises:
        ConfigError: the guidance does not support it, there is no input image, or no object is predicted in it.
        CheckpointError: the bundled model, whose lift is needed, is missing or damaged.
    """
    cfg, started = system.cfg.warm_start, time.perf_counter()
    if cfg.type == "none" or (cfg.type == "auto" and (system.guidance is None or system.cfg.guidance_input != "rgb")):
        return {}
    assert system.guidance is not None, "check_warm_start checks it before training"
    if cfg.type == "views":
        reference, generator = system.data_source.conditioning_views(), system.generator("warm-start", 0)
        system.warm_views = sample_warm_views(cfg, system.guidance, reference, generator, system.exposure)
        record: dict[str, Any] = {"type": "views", "n_views": cfg.n_views}
    else:
        if cfg.type == "auto" and system.input_view() is None:
            return {}
        try:
            record = {"type": "lift", **_start_from_lift(system)}
        except (ConfigError, MeshError) as error:  # raised before any parameter has changed
            if cfg.type != "auto":
                raise
            logger.warning("note: the run starts from the geometry's own blob. %s", error)
            return {}
    if system.exposure != 1:
        record["guidance_exposure"] = round(system.exposure, 3)
    return {"warm_start": record | {"seconds": round(time.perf_counter() - started, 1)}}


def check_warm_start(cfg: Any, has_guidance: bool) -> None:
    """Refuse a warm start where there is nothing to start from; raises ConfigError."""
    if cfg.warm_start.type in ("none", "auto"):
        return
    off = "set system.warm_start.type=none."
    if not has_guidance:
        raise ConfigError(f"system.warm_start needs a guidance, and system.loss.lambda_sds is 0: {off}")
    if cfg.guidance_input != "rgb":
        raise ConfigError(f"system.warm_start needs colours, and system.guidance_input is {cfg.guidance_input}: {off}")


def _start_from_lift(system: System) -> dict[str, Any]:
    bound = system.geometry.cfg.radius
    lifted, exposure, record = system.guidance.scene(bound), system.exposure, {}
    if lifted is None:
        lifted, exposure = _lift_with_bundled_model(system, bound)
        record["model"] = Path(BUNDLED).name
    if exposure != 1:
        lifted = UnexposedField(lifted, exposure)
    if system.geometry.has_sdf or system.geometry.has_gaussians:
        return record | start_from_surface(system, lifted, "auto")
    generator = system.generator("warm-start", 0)
    targets = _sample_targets(lifted, system.data_source.photos(), generator)
    return record | _fit_density(system, targets, system.cfg.warm_start.steps, generator)


def _lift_with_bundled_model(system: System, bound: float) -> tuple[LiftedField, float]:
    """Return the bundled model's prediction from the input views, and the exposure that they were given."""
    if system.input_view() is None:
        raise ConfigError(
            "system.warm_start.type: lift needs an input image, and this run has none; set system.warm_start.type=none."
        )
    views = system.data_source.conditioning_views()
    height, width = views.rgb.shape[1:3]
    if height != width:
        raise ConfigError(
            f"system.warm_start.type: lift needs square images, and these have {width}x{height} pixels; set "
            "system.warm_start.type=none."
        )
    exposure = guidance_exposure("auto", views, "rgb")
    model = load_zero123(locate_bundled(), dtype="fp32", device=system.guidance.device, decoder=False)
    return lift_views(model, expose_views(views, exposure), bound), exposure


@torch.no_grad()
def _sample_targets(field: RadianceField, photos: ReferenceView, generator: torch.Generator) -> _Targets:
    """Return opacity and colour at random points; what the input image shows to be empty is empty."""
    points = (2 * torch.rand(POOL, 3, generator=generator) - 1) * field.bound
    out = field.query(points, torch.zeros_like(points), frozenset({"rgb"}))
    assert out.rgb is not None
    opacity = _opacity(out.sigma)
    is_free = outside_visual_hull(photos)
    if is_free is not None:
        opacity = opacity * ~is_free(points).to(opacity.device)
    occupied = (opacity > MIN_OPACITY).nonzero()[:, 0]
    if len(occupied) == 0:
        raise ConfigError(
            "system.warm_start: the guidance predicts no object in the input image; set system.warm_start.type=none."
        )
    return _Targets(points.to(opacity.device), opacity, out.rgb, occupied)


def _opacity(sigma: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    return 1 - torch.exp(-STEP_LENGTH * sigma)


def _fit_density(system: System, targets: _Targets, steps: int, generator: torch.Generator) -> dict[str, float]:
    """Regress opacity and, weighted by it, colour; returns their root mean squared errors on the last batch."""
    parameters = [*system.geometry.parameters(), *system.material.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99))
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    field = system.field()
    opacity_mse = color_mse = torch.zeros(())
    for _ in range(steps):
        anywhere = torch.randint(POOL, (BATCH // 2,), generator=generator)
        on_object = torch.randint(len(targets.occupied), (BATCH // 2,), generator=generator)
        drawn = torch.cat(
            [anywhere.to(targets.occupied.device), targets.occupied[on_object.to(targets.occupied.device)]]
        )
        points, opacity = targets.points[drawn], targets.opacity[drawn]
        out = field.query(points, torch.zeros_like(points), frozenset({"rgb"}))
        assert out.rgb is not None
        opacity_mse = (_opacity(out.sigma) - opacity).square().mean()
        color_mse = (opacity[:, None] * (out.rgb - targets.rgb[drawn]).square()).mean()
        optimizer.zero_grad(set_to_none=True)
        (opacity_mse + color_mse).backward()
        optimizer.step()
        decay.step()
    return {"opacity_rmse": float(opacity_mse.detach().sqrt()), "color_rmse": float(color_mse.detach().sqrt())}
