"""The level set of a function on a cube: sparse sampling, marching cubes, and the level that matches silhouettes.

A grid of resolution R has R cells and R + 1 nodes along each axis; the functions grow towards the inside.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LevelFunction = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]


@dataclass
class GridSamples:
    """A function at the nodes of a box-shaped grid.

    values are exact where known; elsewhere they are interpolated and only their side of the level is right.
    """

    values: Float[np.ndarray, "X Y Z"]
    lower: Float[np.ndarray, "3"]
    upper: Float[np.ndarray, "3"]
    n_evaluated: int


def evaluate_points(fn: LevelFunction, points: Float[np.ndarray, "N 3"], chunk: int = 262144) -> np.ndarray:
    """Evaluate a function at points, in chunks and without gradients.

    Args:
        fn: N 3, float32 -> N.
        points: N 3.
        chunk: points per call.

    Returns:
        N, float32, all finite; NaN and -inf become a value far below every level, +inf one far above.
    """
    out = np.empty(len(points), np.float32)
    for start in range(0, len(points), chunk):
        x = torch.from_numpy(np.ascontiguousarray(points[start : start + chunk], dtype=np.float32))
        out[start : start + chunk] = fn(x).detach().reshape(-1).float().cpu().numpy()
    lowest = np.finfo(np.float32).min / 4
    return np.nan_to_num(out, copy=False, nan=lowest, posinf=-lowest, neginf=lowest)


def _node_positions(index: Int[np.ndarray, "N 3"], resolution: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return (lower + index * ((upper - lower) / resolution)).astype(np.float32)


def sample_dense(fn: LevelFunction, resolution: int, lower: np.ndarray, upper: np.ndarray) -> GridSamples:
    """Evaluate a function at every node of a box-shaped grid.

    Args:
        fn: N 3 -> N.
        resolution: cells R per edge, R + 1 nodes.
        lower, upper: 3, corners of the box.

    Returns:
        The grid with all values exact.
    """
    n = resolution + 1
    values = np.empty((n, n, n), np.float32)
    yz = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2)
    for i in range(n):
        index = np.concatenate([np.full((len(yz), 1), i), yz], axis=1)
        values[i] = evaluate_points(fn, _node_positions(index, resolution, lower, upper)).reshape(n, n)
    return GridSamples(values, lower, upper, values.size)


def _along(axis: int, start: int | None, stop: int | None, step: int) -> tuple[slice, ...]:
    """Return the index that takes start:stop:step along one axis and everything along the others."""
    return tuple(slice(start, stop, step) if a == axis else slice(None) for a in range(3))


def _resized_shape(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _upsample(values: np.ndarray) -> np.ndarray:
    """Interpolate (n + 1)^3 nodes linearly to (2n + 1)^3."""
    for axis in (2, 1, 0):  # the last, largest pass moves whole planes
        n = values.shape[axis]
        fine = np.empty(_resized_shape(values.shape, axis, 2 * n - 1), values.dtype)
        fine[_along(axis, 0, None, 2)] = values
        between = values[_along(axis, None, -1, 1)] + values[_along(axis, 1, None, 1)]
        np.multiply(between, 0.5, out=fine[_along(axis, 1, None, 2)])
        values = fine
    return values


def _straddling_cells(inside: Bool[np.ndarray, "X Y Z"]) -> Bool[np.ndarray, "Cx Cy Cz"]:
    """Cells whose eight corners are not all on one side."""
    some, every = inside, inside
    for axis in range(3):
        a = [slice(None)] * 3
        b = [slice(None)] * 3
        a[axis], b[axis] = slice(None, -1), slice(1, None)
        some, every = some[tuple(a)] | some[tuple(b)], every[tuple(a)] & every[tuple(b)]
    return some & ~every


def _nodes_of_cells(cells: Bool[np.ndarray, "C C C"]) -> Bool[np.ndarray, "X Y Z"]:
    """The nodes of the grid twice as fine that lie in or on the given cells."""
    nodes = cells
    for axis in (2, 1, 0):
        fine = np.zeros(_resized_shape(nodes.shape, axis, 2 * nodes.shape[axis] + 1), bool)
        fine[_along(axis, 1, None, 2)] = nodes
        fine[_along(axis, 0, -1, 2)] = nodes
        fine[_along(axis, 2, None, 2)] |= nodes
        nodes = fine
    return nodes


def _unknown_at_sign_changes(inside: np.ndarray, known: np.ndarray) -> Bool[np.ndarray, "X Y Z"]:
    """Return interpolated nodes next to a node on the other side: the surface has left the evaluated region."""
    at_change = np.zeros_like(known)
    for axis in range(3):
        a = [slice(None)] * 3
        b = [slice(None)] * 3
        a[axis], b[axis] = slice(None, -1), slice(1, None)
        change = inside[tuple(a)] != inside[tuple(b)]
        at_change[tuple(a)] |= change
        at_change[tuple(b)] |= change
    return at_change & ~known


def sample_sparse(
    fn: LevelFunction, level: float, resolution: int, lower: np.ndarray, upper: np.ndarray, base: int = 64
) -> GridSamples:
    """Evaluate a function on a grid only near its level set.

    A base grid is sampled in full and halved until `resolution` is reached; at each halving the cells that straddle
    the level are evaluated, then the surface is followed wherever it leaves them. Both ends of every edge that
    crosses the level are exact. A part that no node of the base grid touches is not found.

    Args:
        fn: N 3 -> N.
        level: value on the surface.
        resolution: cells per edge, a fixed point of `sparse_resolution`.
        lower, upper: 3, corners of the box.
        base: most cells per edge of the base grid.

    Returns:
        The grid; away from the level its values are interpolated.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.isosurface import marching_cubes, sample_sparse
        >>> ball = lambda x: 1 - x.norm(dim=-1)
        >>> grid = sample_sparse(ball, 0.5, 32, np.full(3, -1.0), np.full(3, 1.0), base=16)
        >>> vertices, faces = marching_cubes(grid, 0.5)
        >>> bool(np.allclose(np.linalg.norm(vertices, axis=1), 0.5, atol=0.01))
        True
    """
    assert resolution == sparse_resolution(resolution, base)
    levels = 0
    while resolution >> levels > base:
        levels += 1
    grid = sample_dense(fn, resolution >> levels, lower, upper)
    values, n_evaluated = grid.values, grid.values.size
    known = np.ones(values.shape, bool)
    for step in range(levels - 1, -1, -1):
        cells = _straddling_cells(values > level)
        finer_known = np.zeros(tuple(2 * n - 1 for n in values.shape), bool)
        finer_known[::2, ::2, ::2] = known
        values, known = _upsample(values), finer_known
        todo = _nodes_of_cells(cells) & ~known
        while todo.any():
            index = np.argwhere(todo)
            values[todo] = evaluate_points(fn, _node_positions(index, resolution >> step, lower, upper))
            n_evaluated += len(index)
            known |= todo
            todo = _unknown_at_sign_changes(values > level, known)
    return GridSamples(values, lower, upper, n_evaluated)


def sparse_resolution(resolution: int, base: int = 64) -> int:
    """Return the smallest resolution that `sample_sparse` reaches by halving and that is at least the given one.

    Args:
        resolution: cells per edge, at least 1.
        base: most cells per edge of the base grid.

    Returns:
        A power of two times an integer <= base.

    Example:
        >>> from zero123s.mesh.isosurface import sparse_resolution
        >>> sparse_resolution(100), sparse_resolution(257)
        (100, 264)
    """
    levels = 0
    while -(-resolution // 2**levels) > base:
        levels += 1
    return -(-resolution // 2**levels) * 2**levels


def occupied_bounds(grid: GridSamples, level: float, margin_cells: int = 1) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the bounding box of all nodes above a level, within the grid.

    Args:
        grid: the sampled function.
        level: value on the surface.
        margin_cells: cells added on each side.

    Returns:
        3 and 3, lower and upper corner; None if no node is above the level.
    """
    inside = grid.values > level
    if not inside.any():
        return None
    cell = (grid.upper - grid.lower) / (np.array(inside.shape) - 1)
    lower, upper = np.empty(3), np.empty(3)
    for axis in range(3):
        where = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        lower[axis], upper[axis] = where[0] - margin_cells, where[-1] + margin_cells
    return np.maximum(grid.lower + lower * cell, grid.lower), np.minimum(grid.lower + upper * cell, grid.upper)


def linearize_density(grid: GridSamples, level: float) -> tuple[GridSamples, float]:
    """Express the level set of a density in terms of log(exp(density) - 1), the raw value behind a softplus.

    Density rises steeply and unevenly across a surface, the raw value about linearly, and marching cubes interpolates
    linearly: without this, vertices snap towards grid nodes.

    Args:
        grid: the sampled density; with a negative value in it, grid and level are returned unchanged.
        level: density on the surface.

    Returns:
        The transformed grid and level.
    """
    if level <= 0 or grid.values.min() < 0:
        return grid, level

    def raw(x: np.ndarray) -> np.ndarray:
        x = np.maximum(x, np.float32(1e-8))
        return x + np.log(-np.expm1(-x))

    (raw_level,) = raw(np.array([level], np.float32))
    return GridSamples(raw(grid.values), grid.lower, grid.upper, grid.n_evaluated), float(raw_level)


def marching_cubes(grid: GridSamples, level: float) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Extract the closed level set of a grid by marching cubes (Lewiner et al. 2003).

    The box is surrounded by one layer of nodes outside the surface, so that an object cut by the box gets a lid.

    Args:
        grid: the sampled function, larger inside.
        level: value on the surface.

    Returns:
        V 3, vertices, and F 3, faces counter-clockwise seen from outside; empty arrays if there is no surface.
    """
    from skimage.measure import marching_cubes as extract

    if not (grid.values > level).any():
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    cell = (grid.upper - grid.lower) / (np.array(grid.values.shape) - 1)
    # The range is cut around the level: an outlier of 1e30 would push edge interpolation out of float32.
    spread = max(float(np.percentile(np.abs(grid.values - level), 99)), 1e-6)
    values = np.clip(grid.values - level, -spread, spread)
    # A node exactly on the level makes triangles without area.
    values[values == 0] = -1e-6 * spread
    padded = np.pad(values, 1, constant_values=-spread)
    vertices, faces, _, _ = extract(padded, 0.0, gradient_direction="ascent", allow_degenerate=False)
    return grid.lower + (vertices - 1.0) * cell, faces.astype(np.int64)


def refine_vertices(
    fn: LevelFunction,
    level: float,
    vertices: Float[np.ndarray, "V 3"],
    grid: GridSamples,
    inside: Bool[np.ndarray, "X Y Z"],
    halvings: int = 4,
) -> Float[np.ndarray, "V 3"]:
    """Move the vertices of marching cubes along their grid edges to where fn itself crosses the level, by bisection.

    Between two nodes a density may rise by orders of magnitude: interpolated linearly, the surface ends up to half a
    cell too far out. Each halving of the edge costs one evaluation per vertex.

    Args:
        fn: what the grid was sampled from, N 3 -> N.
        level: value of fn on the surface.
        vertices: V 3, of `marching_cubes`.
        grid: the grid they come from.
        inside: X Y Z, nodes at which fn exceeds the level; vertices of other edges (filled in, cut by the box) stay.
        halvings: steps of the bisection.

    Returns:
        V 3.
    """
    cell = (grid.upper - grid.lower) / (np.array(grid.values.shape) - 1)
    at = (vertices - grid.lower) / cell
    low = np.floor(at + 1e-6).astype(int)
    high = np.ceil(at - 1e-6).astype(int)
    last = np.array(grid.values.shape) - 1
    valid = ((low >= 0) & (high <= last)).all(1) & (low != high).any(1)
    a, b = (tuple(end.clip(0, last).T) for end in (low, high))
    valid &= inside[a] != inside[b]
    index = np.flatnonzero(valid)
    inner = np.where(inside[a][index, None], low[index], high[index]).astype(np.float64)
    outer = np.where(inside[a][index, None], high[index], low[index]).astype(np.float64)
    for _ in range(halvings):
        middle = (inner + outer) / 2
        within = evaluate_points(fn, (grid.lower + middle * cell).astype(np.float32)) > level
        inner[within], outer[~within] = middle[within], middle[~within]
    moved = vertices.copy()
    moved[index] = grid.lower + (inner + outer) / 2 * cell
    return moved


@dataclass(frozen=True)
class LevelChoice:
    """The level whose silhouettes agree best with the rendered opacity, and the scores of all candidates."""

    level: float
    levels: Float[np.ndarray, "K"]
    iou: Float[np.ndarray, "K"]
    """Mean silhouette IoU over the views for each candidate."""


Box = tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]


def _box_samples(origins: np.ndarray, directions: np.ndarray, box: Box, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n positions per ray between its entry to and exit from the box, and their spacing (0 = missed)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t0, t1 = (box[0] - origins) / directions, (box[1] - origins) / directions
    near = np.nanmax(np.minimum(t0, t1), axis=-1).clip(0)
    far = np.maximum(np.nanmin(np.maximum(t0, t1), axis=-1), near)
    t = near[:, None] + (far - near)[:, None] * ((np.arange(n) + 0.5) / n)
    return origins[:, None] + t[..., None] * directions[:, None], (far - near) / n


def choose_level(
    level_fn: LevelFunction,
    density: LevelFunction,
    rays: list[
        tuple[Float[np.ndarray, "R 3"], Float[np.ndarray, "R 3"], Bool[np.ndarray, "R"] | Float[np.ndarray, "R"] | None]
    ],
    box: Box,
    n_samples: int = 96,
    n_levels: int = 96,
) -> LevelChoice | None:
    """Return the level whose silhouettes match the opacity that the density renders.

    A ray hits the level set if and only if the largest value along it exceeds the level, so all candidates are
    scored from one set of samples and no mesh is made.

    Args:
        level_fn: function whose level set is the surface, N 3 -> N.
        density: sigma, N 3 -> N; not evaluated again where it is `level_fn`.
        rays: per view (origins, unit directions, mask or None); a mask replaces the rendered opacity as the target.
        box: lower and upper corner of the region that may be opaque; only there is the field evaluated.
        n_samples: evaluations per ray.
        n_levels: candidates.

    Returns:
        The chosen level and the scores of all; None if nothing is opaque.
    """
    peaks, targets = [], []
    for origins, directions, mask in rays:
        points, dt = _box_samples(origins, directions, box, n_samples)
        meets = dt > 0
        flat = points[meets].reshape(-1, 3)
        values = evaluate_points(level_fn, flat).reshape(-1, n_samples)
        peak = np.full(len(origins), np.finfo(np.float32).min)
        peak[meets] = values.max(-1)
        target = mask
        if target is None:
            sigma = values if level_fn == density else evaluate_points(density, flat).reshape(values.shape)
            optical_depth = np.minimum((sigma.clip(0) * dt[meets, None]).sum(-1), 80.0)
            target = np.zeros(len(origins))
            target[meets] = 1 - np.exp(-optical_depth)
        peaks.append(peak)
        targets.append(target > 0.5)
    inside = np.concatenate([p[t] for p, t in zip(peaks, targets, strict=True)])
    finite = inside[inside > np.finfo(np.float32).min]
    if len(finite) == 0:
        return None
    low, high = np.quantile(finite, 0.0), np.quantile(finite, 0.95)
    if low > 0:
        levels = np.geomspace(max(low * 0.5, high * 1e-4), high, n_levels)
    else:
        levels = np.linspace(low, high, n_levels)
    iou = np.zeros(n_levels)
    for k, level in enumerate(levels):
        scores = [
            ((p > level) & t).sum() / max(((p > level) | t).sum(), 1) for p, t in zip(peaks, targets, strict=True)
        ]
        iou[k] = np.mean(scores)
    # Of the levels that are as good, the middle one is the safest.
    best = np.flatnonzero(iou >= iou.max() - 1e-3)
    return LevelChoice(float(levels[best[len(best) // 2]]), levels, iou)
