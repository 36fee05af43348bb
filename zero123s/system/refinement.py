"""The start of a second stage: a signed distance field that shows the surface and the colours of a first one."""

import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from zero123s.mesh.signed_distance import SignedDistance
from zero123s.mesh.surface import SurfaceOptions, find_surface, surface_threshold

System = Any
"""A `Zero123System`; its module imports this one."""

RESOLUTION = 160
"""Cells per edge of the box around the first stage's object."""
STEPS = 400
BATCH = 8192
LEARNING_RATE = 0.01
NEAR = 0.03
"""Standard deviation of the points around the surface, as a share of the object's longest side."""
NEAR_POOL, FAR_POOL = 80 * BATCH, 4 * BATCH
"""Points whose distances are looked up, once, for all batches; one far away takes ten times as long as one near by."""
COLOR_WEIGHT = 0.1
"""Weight of squared colour differences beside absolute distances in world units."""


def start_from_field(system: System, first: System) -> dict[str, Any]:
    """Fit the geometry to the first stage's surface and colours, and take its material and background where their settings are equal.

    Returns:
        The threshold of the first surface, its faces, the mean distance between the two surfaces in world units, the
        PSNR of the colours on it, and the seconds it took.

    Raises:
        MeshError: the first stage has no surface.
    """
    started = time.perf_counter()
    for name in ("material", "background"):
        if getattr(system.cfg, name) == getattr(first.cfg, name):
            getattr(system, name).load_state_dict(getattr(first, name).state_dict())
    stats: dict[str, Any] = {}
    field = first.field()
    level = surface_threshold(field, first.geometry.cfg.isosurface_threshold, system.input_view(), stats)
    distance = SignedDistance(*find_surface(field, level, SurfaceOptions(RESOLUTION), stats))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(system.seed)
        error, color_mse = _fit(system, first, distance)
    return {
        "threshold": level,
        "faces": stats["faces_before_simplification"],
        "surface_distance": error,
        "color_psnr_db": float(-10 * np.log10(max(color_mse, 1e-10))),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _fit(system: System, first: System, distance: SignedDistance) -> tuple[float, float]:
    """Return mean |signed distance| and mean squared colour difference on the surface, after fitting both."""
    rng = np.random.default_rng(system.seed)
    extent = float(np.ptp(distance.surface, axis=0).max())
    bound = system.geometry.cfg.radius
    optimizer = torch.optim.Adam(
        [*system.geometry.parameters(), *system.material.parameters()], lr=LEARNING_RATE, betas=(0.9, 0.99)
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    near = distance.surface[rng.integers(len(distance.surface), size=NEAR_POOL)]
    near = near + rng.normal(0, NEAR * extent, near.shape)
    points = np.concatenate([near, rng.uniform(-bound, bound, (FAR_POOL, 3))]).clip(-bound, bound)
    targets = _tensor(distance(points)).to(system.device)
    for _ in range(STEPS):
        drawn = np.concatenate([rng.integers(NEAR_POOL, size=BATCH // 2), rng.integers(-FAR_POOL, 0, size=BATCH // 4)])
        loss = (_sdf(system, _tensor(points[drawn])) - targets[torch.from_numpy(drawn)]).abs().mean()
        colors = rng.integers(len(distance.surface), size=BATCH // 4)
        loss = loss + COLOR_WEIGHT * _color_mse(system, first, distance, colors)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay.step()
    check = rng.integers(len(distance.surface), size=BATCH)
    with torch.no_grad():
        error = float(_sdf(system, _tensor(distance.surface[check])).abs().mean())
        return error, float(_color_mse(system, first, distance, check))


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _sdf(system: System, x: torch.Tensor) -> torch.Tensor:
    return -system.geometry.surface_level(x)


def _color_mse(system: System, first: System, distance: SignedDistance, on: np.ndarray) -> torch.Tensor:
    """Compare colours on the surface, seen from straight outside."""
    x, dirs = _tensor(distance.surface[on]), _tensor(-distance.normals[on])
    with torch.no_grad():
        wanted = first.field().query(x, dirs, frozenset({"rgb"})).rgb
    got = system.field().query(x, dirs, frozenset({"rgb"})).rgb
    assert wanted is not None
    assert got is not None
    return F.mse_loss(got, wanted)
