"""Warm starts: a new run begins with what the guidance already knows of the object, not with a blob."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zero123s.config.options import option
from zero123s.errors import ConfigError
from zero123s.mesh.silhouette import outside_visual_hull
from zero123s.structures import RadianceField, ReferenceView

System = Any
"""A `Zero123System`; its module imports this one."""

POOL = 2**17
"""Points in the scene's cube at which the guidance's own field is looked up, once, for all batches."""
BATCH = 8192
LEARNING_RATE = 0.01
STEP_LENGTH = 0.02
"""World units over which densities are compared as opacities: it does not matter how opaque an opaque cell is."""
SOME_OPACITY = 0.02
"""Opacity of a step from which a point counts as occupied; half of every batch is."""


@dataclass
class WarmStartConfig:
    """What a new run starts from."""

    type: str = option("none", choices=("none", "lift"))
    """"none": as the geometry's settings say; "lift": the volume that the guidance's own pose lift makes of the input image,
    fitted into the geometry before step 0 (the small model that comes along has one)."""
    steps: int = option(300, low=1, high=100_000)
    """Optimiser steps of that fit."""


@dataclass(frozen=True)
class _Targets:
    points: Float[Tensor, "P 3"]
    opacity: Float[Tensor, "P"]
    rgb: Float[Tensor, "P 3"]
    occupied: Tensor


def warm_start(system: System) -> dict[str, Any]:
    """Fit a system's geometry and material to the field of its guidance; returns what run.json says of it.

    Raises:
        ConfigError: the guidance has no field of its own, or sees nothing in the image.
    """
    cfg, started = system.cfg.warm_start, time.perf_counter()
    guessed = None if system.guidance is None else system.guidance.scene(system.geometry.cfg.radius)
    if guessed is None:
        raise ConfigError(
            "system.warm_start.type: lift needs a guidance whose model has a pose lift, as the small model that comes along "
            "has; set system.warm_start.type=none."
        )
    generator = system.generator("warm-start", 0)
    targets = _look_up(guessed, system.data_source.photos(), generator)
    errors = _fit_density(system, targets, cfg.steps, generator)
    return {"type": cfg.type, **errors, "seconds": round(time.perf_counter() - started, 1)}


@torch.no_grad()
def _look_up(field: RadianceField, photos: ReferenceView, generator: torch.Generator) -> _Targets:
    """Return opacity and colour at random points; what the input image shows to be empty is empty."""
    points = (2 * torch.rand(POOL, 3, generator=generator) - 1) * field.bound
    out = field.query(points, torch.zeros_like(points), frozenset({"rgb"}))
    assert out.rgb is not None
    opacity = _opacity(out.sigma)
    is_free = outside_visual_hull(photos)
    if is_free is not None:
        opacity = opacity * ~is_free(points).to(opacity.device)
    occupied = (opacity > SOME_OPACITY).nonzero()[:, 0]
    if len(occupied) == 0:
        raise ConfigError(
            "system.warm_start: the guidance sees no object in the image; set system.warm_start.type=none."
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
