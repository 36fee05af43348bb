"""Initialisation of a second stage: fits a signed distance field to the surface and colours of the first."""

import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from zero123s.mesh.signed_distance import SignedDistance
from zero123s.mesh.surface import SurfaceOptions, find_surface, surface_threshold
from zero123s.structures import RadianceField

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
"""Points whose distances are computed once for all batches; a distant one takes ten times as long as a near one."""
SHELL = 0.1
"""Thickness, as a share of the field's bound, of the layer below the surface that half of the Gaussians fill: where training
thins out those on the surface, no hole opens into a hollow."""
COLOR_WEIGHT = 0.1
"""Weight of squared colour differences relative to absolute distances in world units."""


def convert_first_stage(system: System, first: System) -> dict[str, Any]:
    """Bring a new system's geometry to a first stage's surface and colours, and take over its material and background where
    their settings are equal.

    Returns:
        The seconds it took, and what `start_from_surface` returns.

    Raises:
        MeshError: the first stage has no surface.
    """
    started = time.perf_counter()
    for name in ("material", "background"):
        if getattr(system.cfg, name) == getattr(first.cfg, name):
            getattr(system, name).load_state_dict(getattr(first, name).state_dict())
    inherits = system.cfg.geometry_convert_inherit_texture
    if _copy_nodes(system.geometry, first.geometry):
        if inherits:
            _copy_colors(system.geometry, first.geometry)
        record: dict[str, Any] = {"nodes": "those of the first stage"}
    else:
        threshold = first.geometry.cfg.isosurface_threshold
        record = start_from_surface(system, first.field(), threshold, inherits, first.geometry)
    return record | {"seconds": round(time.perf_counter() - started, 1)}


def start_from_surface(
    system: System, field: RadianceField, threshold: Any, colors: bool = True, geometry: Any = None
) -> dict[str, Any]:
    """Fit a new system's geometry to the surface and the colours of a field; Gaussians are put there.

    Args:
        system: whose geometry has a signed distance or Gaussians.
        field: has the surface.
        threshold: level of the surface, or "auto".
        colors: fit the colours, too.
        geometry: that of the field; where its networks are the system's own ones, they are copied.

    Returns:
        The threshold of the surface, its faces and, of a fitted geometry, the mean distance between the two surfaces in
        world units and the PSNR of the colours on it; of Gaussians their number.

    Raises:
        MeshError: the field has no surface.
    """
    stats: dict[str, Any] = {}
    level = surface_threshold(field, threshold, system.input_view(), stats)
    if system.geometry.has_gaussians:
        return _start_gaussians(system, field, level, stats)
    distance = SignedDistance(*find_surface(field, level, SurfaceOptions(RESOLUTION), stats))
    has_surface = system.geometry.start_from_distance(_NearDistance(distance, system.geometry.cfg.radius))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(system.seed)
        # A network that the surface is fitted with shares its encoding with the colours.
        has_colors = has_surface and colors and _copy_colors(system.geometry, geometry)
        fits_colors = colors and not has_colors and system.geometry.n_features > 0
        error, color_mse = _fit(system, field, distance, not has_surface, fits_colors)
    return {
        "threshold": level,
        "faces": stats["faces_before_simplification"],
        "surface_distance": error,
        "color_psnr_db": float(-10 * np.log10(max(color_mse, 1e-10))),
    }


def _copy_colors(geometry: Any, first: Any) -> bool:
    """Copy encoding and feature network if both stages have the same; returns whether they do."""
    for name in ("encoding", "feature_network"):
        own, given = getattr(geometry, name, None), getattr(first, name, None)
        if own is None or given is None or _shapes(own) != _shapes(given):
            return False
    for name in ("encoding", "feature_network"):
        getattr(geometry, name).load_state_dict(getattr(first, name).state_dict())
    return True


def _copy_nodes(geometry: Any, first: Any) -> bool:
    """Copy distances at grid nodes if both stages store them; returns whether they do."""
    if type(geometry) is not type(first) or geometry.cfg.radius != first.cfg.radius:
        return False
    own, given = geometry.state_dict(), first.state_dict()
    if "sdf" not in own or own["sdf"].shape != given["sdf"].shape:
        return False
    for name in ("sdf", "deformation"):
        if name in own and name in given:
            own[name].copy_(given[name])
    return True


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


class _NearDistance:
    """A signed distance at many points: exact near the surface, interpolated from a coarse grid elsewhere.

    Args:
        distance: exact, and slow far from the surface.
        bound: half edge of the cube that the points lie in.
    """

    CELLS = 32

    def __init__(self, distance: SignedDistance, bound: float) -> None:
        self.distance, self.bound = distance, bound
        axis = torch.linspace(-bound, bound, self.CELLS + 1)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
        self.coarse = _tensor(distance(points.numpy())).reshape(1, 1, *[self.CELLS + 1] * 3)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        at = (x.cpu() / self.bound).flip(-1)[None, None, None]
        rough = F.grid_sample(self.coarse, at, padding_mode="border", align_corners=True).flatten()
        near = rough.abs() < 4 * self.bound / self.CELLS
        if near.any():
            rough[near] = _tensor(self.distance(x.cpu()[near].numpy()))
        return rough.to(x.device)


@torch.no_grad()
def _start_gaussians(system: System, field: RadianceField, level: float, stats: dict[str, Any]) -> dict[str, Any]:
    """Place Gaussians evenly on the first stage's surface and below it, with its colours viewed along the normals."""
    vertices, faces = find_surface(field, level, SurfaceOptions(RESOLUTION), stats)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    rng = np.random.default_rng(system.seed)
    drawn = rng.choice(len(faces), system.geometry.cfg.n_points, p=areas / areas.sum())
    points = (rng.dirichlet([1.0, 1.0, 1.0], len(drawn))[..., None] * corners[drawn]).sum(1)
    dirs = -normals[drawn] / np.maximum(areas[drawn, None], 1e-12)
    points[::2] = _moved_inwards(field, level, points[::2], dirs[::2], rng)
    rgb = field.query(_tensor(points), _tensor(dirs), frozenset({"rgb"})).rgb
    system.geometry.start_from_points(_tensor(points), rgb)
    return {"threshold": level, "faces": stats["faces_before_simplification"], "gaussians": len(points)}


def _moved_inwards(
    field: RadianceField, level: float, points: np.ndarray, dirs: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Move surface points up to SHELL inwards, except where that leaves the solid."""
    depth = SHELL * field.bound * rng.random((len(points), 1))
    moved = points + depth * dirs
    inside = field.surface_level(_tensor(moved)).cpu().numpy() > level
    return np.where(inside[:, None], moved, points)


def _fit(
    system: System, field: RadianceField, distance: SignedDistance, surface: bool, colors: bool
) -> tuple[float, float]:
    """Return mean |signed distance| and mean squared colour difference on the surface, after fitting one, both or none."""
    rng = np.random.default_rng(system.seed)
    bound = system.geometry.cfg.radius
    if not surface and not colors:
        return _errors(system, field, distance, rng.integers(len(distance.surface), size=BATCH))
    optimizer = torch.optim.Adam(
        [*system.geometry.parameters(), *system.material.parameters()], lr=LEARNING_RATE, betas=(0.9, 0.99)
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    points, targets = _targets(distance, bound, rng) if surface else (np.empty(0), torch.empty(0))
    targets = targets.to(system.device)
    for _ in range(STEPS):
        drawn = np.concatenate([rng.integers(NEAR_POOL, size=BATCH // 2), rng.integers(-FAR_POOL, 0, size=BATCH // 4)])
        on_surface = rng.integers(len(distance.surface), size=BATCH // 4)
        terms = []
        if surface:
            terms.append((_sdf(system, _tensor(points[drawn])) - targets[torch.from_numpy(drawn)]).abs().mean())
        if colors:
            terms.append(COLOR_WEIGHT * _color_mse(system, field, distance, on_surface))
        loss = torch.stack(terms).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay.step()
    return _errors(system, field, distance, rng.integers(len(distance.surface), size=BATCH))


def _targets(distance: SignedDistance, bound: float, rng: np.random.Generator) -> tuple[np.ndarray, torch.Tensor]:
    """Return points near the surface, then some anywhere in the cube, and their signed distances."""
    extent = float(np.ptp(distance.surface, axis=0).max())
    near = distance.surface[rng.integers(len(distance.surface), size=NEAR_POOL)]
    near = near + rng.normal(0, NEAR * extent, near.shape)
    points = np.concatenate([near, rng.uniform(-bound, bound, (FAR_POOL, 3))]).clip(-bound, bound)
    return points, _tensor(distance(points))


@torch.no_grad()
def _errors(system: System, field: RadianceField, distance: SignedDistance, on: np.ndarray) -> tuple[float, float]:
    error = float(_sdf(system, _tensor(distance.surface[on])).abs().mean())
    return error, float(_color_mse(system, field, distance, on))


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _sdf(system: System, x: torch.Tensor) -> torch.Tensor:
    return -system.field().surface_level(x)


def _color_mse(system: System, field: RadianceField, distance: SignedDistance, on: np.ndarray) -> torch.Tensor:
    """Compare colours on the surface, viewed along the normals."""
    x, dirs = _tensor(distance.surface[on]), _tensor(-distance.normals[on])
    with torch.no_grad():
        expected = field.query(x, dirs, frozenset({"rgb"})).rgb
    got = system.field().query(x, dirs, frozenset({"rgb"})).rgb
    assert expected is not None
    assert got is not None
    return F.mse_loss(got[:, :3], expected[:, :3])
