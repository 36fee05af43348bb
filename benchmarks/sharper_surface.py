"""Is dual contouring better than marching cubes here? `python benchmarks/sharper_surface.py [RUN TRUTH.ply]`

On exact signed distances of a turned box and a ball, where the answer is known; and, when a run and its true mesh are
given, on what was learned from images. Distances are means over points of the extracted surface, in cells.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zero123s.mesh.isosurface import GridSamples, linearize_density, marching_cubes, occupied_bounds, sample_dense
from zero123s.mesh.metrics import sample_surface
from zero123s.mesh.processing import face_normals, mesh_health
from zero123s.mesh.readers import read_mesh
from zero123s.mesh.signed_distance import SignedDistance
from zero123s.mesh.surface import surface_threshold
from zero123s.run.plan import read_first_stage
from zero123s.run.starting_weights import load_weights

CELLS = 96


def dual_contouring(grid: GridSamples, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return one vertex per cell that straddles the level, where the planes of its crossed edges meet (Ju 2002)."""
    v = np.pad(grid.values.astype(np.float64) - level, 1, constant_values=-np.abs(grid.values - level).max())
    v[v == 0] = -1e-9
    gradient = np.stack(np.gradient(v), -1)
    cells = tuple(n - 1 for n in v.shape)
    quadric = np.zeros((np.prod(cells), 3, 3))
    pull, mass, count = np.zeros((len(quadric), 3)), np.zeros((len(quadric), 3)), np.zeros(len(quadric))
    quads = []
    for axis in range(3):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        index = np.argwhere((v[tuple(low)] > 0) != (v[tuple(high)] > 0))
        step = np.eye(3, dtype=int)[axis]
        a, b = v[tuple(index.T)], v[tuple((index + step).T)]
        t = (a / (a - b))[:, None]
        point = index + t * step
        normal = gradient[tuple(index.T)] * (1 - t) + gradient[tuple((index + step).T)] * t
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        u, w = np.eye(3, dtype=int)[(axis + 1) % 3], np.eye(3, dtype=int)[(axis + 2) % 3]
        around = np.stack([np.ravel_multi_index(tuple((index - s).T), cells) for s in (0 * u, u, u + w, w)], 1)
        for corner in around.T:
            np.add.at(quadric, corner, normal[:, :, None] * normal[:, None])
            np.add.at(pull, corner, normal * (normal * point).sum(1, keepdims=True))
            np.add.at(mass, corner, point)
            np.add.at(count, corner, 1)
        quads.append(np.where((a > 0)[:, None], around, around[:, ::-1]))
    used = np.flatnonzero(count)
    middle = mass[used] / count[used, None]
    soft = 0.05 * np.eye(3)
    vertex = np.linalg.solve(quadric[used] + soft, (pull[used] + middle @ soft)[..., None])[..., 0]
    corner = np.stack(np.unravel_index(used, cells), -1)
    vertex = vertex.clip(corner, corner + 1)
    place = np.zeros(len(quadric), int)
    place[used] = np.arange(len(used))
    quad = place[np.concatenate(quads)]
    faces = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    size = (grid.upper - grid.lower) / (np.array(grid.values.shape) - 1)
    return grid.lower + (vertex - 1) * size, faces


def turned_box(x: np.ndarray) -> np.ndarray:
    """Return the signed distance of a box that is aligned with nothing, negative inside."""
    turn, _ = np.linalg.qr(np.array([[1.0, 0.4, 0.2], [-0.3, 1.0, 0.5], [0.1, -0.6, 1.0]]))
    q = np.abs(x @ turn) - [0.5, 0.35, 0.25]
    return np.linalg.norm(q.clip(0), axis=-1) + q.max(-1).clip(max=0)


def report(name: str, grid: GridSamples, level: float, distance: Callable[[np.ndarray], np.ndarray]) -> None:
    """Print what both ways make of one grid."""
    cell = float(((grid.upper - grid.lower) / (np.array(grid.values.shape) - 1)).mean())
    for way, extract in (("marching cubes", marching_cubes), ("dual contouring", dual_contouring)):
        vertices, faces = extract(grid, level)
        points, _ = sample_surface(vertices, faces, 100_000, np.random.default_rng(0))
        off = np.abs(distance(points)) / cell
        health = mesh_health(vertices, faces)
        normals = face_normals(vertices, faces)
        thin = (np.linalg.norm(normals, axis=1) < 0.02 * cell**2).mean()
        print(
            f"{name:<22}{way:<17} mean {off.mean():.4f}  95% {np.quantile(off, 0.95):.4f}  max {off.max():.3f} cells,"
            f" {health.faces} faces, non-manifold edges {health.non_manifold_edges}, slivers {thin:.1%}"
        )


def main(overrides: list[str]) -> None:
    """Print the table."""
    import torch

    lower, upper = np.full(3, -0.8), np.full(3, 0.8)
    shapes = {"turned box": turned_box, "ball": lambda x: np.linalg.norm(x, axis=-1) - 0.5}
    for name, distance in shapes.items():
        grid = sample_dense(lambda x, d=distance: torch.from_numpy(-d(x.double().numpy())), CELLS, lower, upper)
        report(name, grid, 0.0, distance)
    if overrides:
        system, checkpoint = read_first_stage(overrides[0])
        load_weights(system, checkpoint)
        truth = read_mesh(Path(overrides[1]))
        field = system.field()
        level = surface_threshold(field, "auto", None, {})
        box = occupied_bounds(sample_dense(field.surface_level, CELLS, lower, upper), level)
        assert box is not None
        grid, level = linearize_density(sample_dense(field.surface_level, CELLS, *box), level)
        distance = SignedDistance(truth.vertices, truth.faces)
        report(Path(overrides[0]).name, grid, level, distance)


if __name__ == "__main__":
    main(sys.argv[1:])
