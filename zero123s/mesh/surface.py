"""Extracts a radiance field's surface as a mesh: level, bounds, connected parts, and why there may be none."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from zero123s.errors import MeshError
from zero123s.mesh.isosurface import (
    GridSamples,
    LevelFunction,
    choose_level,
    evaluate_points,
    linearize_density,
    marching_cubes,
    occupied_bounds,
    refine_vertices,
    sample_dense,
    sample_sparse,
    sparse_resolution,
)
from zero123s.mesh.processing import remove_small_components
from zero123s.mesh.silhouette import FreeSpaceFunction
from zero123s.mesh.visibility import hidden_nodes
from zero123s.ops.cameras import generate_rays, orbit_cameras, sphere_fit_distance
from zero123s.structures import RadianceField, ReferenceView

COARSE = 64
"""Cells per edge of the coarse pass over the whole cube."""
HAZE = 0.002
"""Opacity of a coarse cell below which it is empty."""


@dataclass(frozen=True)
class SurfaceOptions:
    """Settings of the surface extraction."""

    resolution: int = 256
    """Cells per edge of the box around the object."""
    coarse_to_fine: bool = True
    """Find the box around the object first and spend the resolution inside it."""
    fill_hidden: bool = True
    """Treat space that is not visible from any elevation above -30 degrees as solid."""
    outlier_threshold: float = 0.01
    """Parts below this share of the largest part's volume are dropped."""
    coarse: int = COARSE
    """Cells per edge of the coarse pass; parts between its nodes are missed."""


@torch.no_grad()
def surface_threshold(
    field: RadianceField, threshold: float | str, reference: ReferenceView | None, stats: dict[str, Any]
) -> float:
    """Return the level of the surface: the given one, or for "auto" the one that matches silhouettes best.

    Args:
        field: the radiance field.
        threshold: level of `field.surface_level`, or "auto".
        reference: input images; their masks are silhouettes to match as well.
        stats: receives the threshold, its source and the scores of all candidates.

    Returns:
        The level.

    Raises:
        MeshError: "auto", and nothing is opaque.
    """
    if not isinstance(threshold, str):
        stats |= {"threshold": float(threshold), "threshold_source": "given"}
        return float(threshold)
    dense = sample_dense(field.density, COARSE, np.full(3, -field.bound), np.full(3, field.bound))
    box = occupied_bounds(dense, HAZE * COARSE / (2 * field.bound), margin_cells=2)
    choice = None
    if box is not None:
        choice = choose_level(field.surface_level, field.density, _rays(field.bound, reference), box)
    if choice is None:
        raise MeshError(f"There is no surface: no ray meets anything opaque. {_describe(field)}")
    stats |= {"threshold": choice.level, "threshold_source": "silhouettes"}
    stats["threshold_curve"] = {"levels": choice.levels.tolist(), "silhouette_iou": choice.iou.tolist()}
    return choice.level


@torch.no_grad()
def find_surface(
    field: RadianceField,
    given: float,
    options: SurfaceOptions,
    stats: dict[str, Any],
    is_free: FreeSpaceFunction | None = None,
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Extract the closed surface at a level, without floaters.

    Args:
        field: the radiance field.
        given: level of `field.surface_level`.
        options: resolution and clean-up.
        stats: receives the shares of evaluated and filled nodes, and the numbers of dropped parts and of faces.
        is_free: marks points that do not belong to the solid, whatever the field's value there.

    Returns:
        V 3 and F 3.

    Raises:
        MeshError: there is no surface at this level.
    """
    lower, upper = np.full(3, -field.bound), np.full(3, field.bound)
    if options.coarse_to_fine:
        box = occupied_bounds(sample_dense(field.surface_level, options.coarse, lower, upper), given)
        lower, upper = box if box is not None else (lower, upper)
    resolution = sparse_resolution(options.resolution, options.coarse)
    grid = sample_sparse(field.surface_level, given, resolution, lower, upper, options.coarse)
    grid, level = linearize_density(grid, given)
    inside = grid.values > level
    if is_free is not None:
        _take_out(inside, grid, is_free)
        # By however little: `refine_vertices` moves the surface to where the outline is.
        grid.values[~inside] = np.minimum(grid.values[~inside], level - 1e-3)
    if options.fill_hidden:
        hidden = hidden_nodes(inside)
        if is_free is not None:
            _take_out(hidden, grid, is_free)
        stats["hidden_share"] = float(hidden.mean())
        grid.values[hidden] = max(float(grid.values.max()), level + 1e-3)
    vertices, faces = marching_cubes(grid, level)
    vertices = refine_vertices(_within(field.surface_level, is_free), given, vertices, grid, inside)
    stats["evaluated_share"] = grid.n_evaluated / grid.values.size
    if len(faces) == 0:
        raise MeshError(f"There is no surface at threshold {given:g}. {_describe(field)}")
    vertices, faces, dropped = remove_small_components(vertices, faces, options.outlier_threshold)
    stats |= {"components_dropped": dropped, "faces_before_simplification": len(faces)}
    return vertices, faces


def _take_out(nodes: Bool[np.ndarray, "X Y Z"], grid: GridSamples, is_free: FreeSpaceFunction) -> None:
    """Clear the marked nodes of a grid that are free."""
    index = np.argwhere(nodes)
    cell = (grid.upper - grid.lower) / (np.array(grid.values.shape) - 1)
    free = evaluate_points(is_free, (grid.lower + index * cell).astype(np.float32)).astype(bool)
    nodes[tuple(index[free].T)] = False


def _within(fn: LevelFunction, is_free: FreeSpaceFunction | None) -> LevelFunction:
    if is_free is None:
        return fn

    def level_within(x: torch.Tensor) -> torch.Tensor:
        level = fn(x)
        return torch.where(is_free(x).to(level.device), -torch.inf, level)

    return level_within


def _rays(bound: float, reference: ReferenceView | None, size: int = 64, max_reference: int = 8) -> list[Any]:
    """Return the views in which a level is scored: eight around, two from above and below, and the masked reference.

    Of many reference views `max_reference` are taken, evenly chosen.
    """
    distance = sphere_fit_distance(bound * 1.2, 30.0)
    elevations = torch.tensor([0.0, 30.0] * 4 + [75.0, -60.0])
    azimuths = torch.tensor([45.0 * i for i in range(8)] + [0.0, 90.0])
    rays = generate_rays(orbit_cameras(elevations, azimuths, distance, 30.0, size, size))
    views: list[Any] = [
        (o.reshape(-1, 3).numpy(), d.reshape(-1, 3).numpy(), None)
        for o, d in zip(rays.rays_o, rays.rays_d, strict=True)
    ]
    if reference is not None:
        n = len(reference.cameras)
        chosen = torch.linspace(0, n - 1, min(n, max_reference)).round().long()
        chosen_views = ReferenceView(
            reference.cameras.select(chosen), reference.rgb[chosen], reference.mask[chosen]
        ).to("cpu")
        small = generate_rays(
            chosen_views.cameras.resized(size, max(1, size * chosen_views.cameras.width // chosen_views.cameras.height))
        )
        masks = torch.nn.functional.interpolate(
            chosen_views.mask.permute(0, 3, 1, 2), small.rays_d.shape[1:3], mode="area"
        )
        for o, d, m in zip(small.rays_o, small.rays_d, masks, strict=True):
            views.append((o.reshape(-1, 3).numpy(), d.reshape(-1, 3).numpy(), m.reshape(-1).numpy()))
    return views


def _describe(field: RadianceField) -> str:
    """Describe the density and suggest what to change."""
    axis = np.linspace(-field.bound, field.bound, 33)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    values = evaluate_points(field.surface_level, points)
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    return (
        f"On a 33^3 grid the level function runs from {low:.3g} (median {middle:.3g}) to {high:.3g}: train longer, "
        "resume a trained checkpoint, or set system.geometry.isosurface_threshold below the largest value."
    )
