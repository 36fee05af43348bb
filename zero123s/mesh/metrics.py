"""Distances between two images, surfaces or solids, and quality of a texture layout. Pure functions."""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Bool, Float, Int

from zero123s.images.image_metrics import mask_iou
from zero123s.mesh.processing import face_normals
from zero123s.mesh.texture import texel_fragments
from zero123s.ops.rasterization.software import view_fragments
from zero123s.structures import Cameras, Mesh

# ---------------------------------------------------------------- surfaces


def sample_corners(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], n: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """Sample points uniformly by area, as barycentric combinations.

    Args:
        vertices: V 3.
        faces: F 3.
        n: number of points N.
        rng: source of the random numbers.

    Returns:
        N 3, the vertices of each point's face, and N 3, their barycentric weights.
    """
    area = np.linalg.norm(face_normals(vertices, faces), axis=1)
    chosen = faces[rng.choice(len(faces), n, p=area / area.sum())]
    u, v = np.sqrt(rng.random(n)), rng.random(n)
    return chosen, np.stack([1 - u, u * (1 - v), u * v], -1)


def sample_surface(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], n: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """Sample points uniformly by area, with the normals of their faces.

    Args:
        vertices: V 3.
        faces: F 3.
        n: number of points N.
        rng: source of the random numbers.

    Returns:
        N 3, points, and N 3, unit normals.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.metrics import sample_surface
        >>> vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> points, normals = sample_surface(vertices, np.array([[0, 1, 2]]), 100, np.random.default_rng(0))
        >>> points.shape, bool((points[:, :2].sum(1) <= 1).all()), normals[0].tolist()
        ((100, 3), True, [0.0, 0.0, 1.0])
    """
    corners, weights = sample_corners(vertices, faces, n, rng)
    normals = face_normals(vertices, corners)
    return np.einsum("nc,ncd->nd", weights, vertices[corners]), normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import cKDTree

    distance, index = cKDTree(b).query(a)
    return np.asarray(distance), np.asarray(index)


def chamfer(a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "M 3"]) -> float:
    """Compute the Chamfer distance of two point sets: the mean of both mean nearest-neighbour distances, not squared.

    Args:
        a: N 3.
        b: M 3.

    Returns:
        In the points' unit.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.metrics import chamfer
        >>> chamfer(np.zeros((1, 3)), np.array([[0.0, 0.0, 2.0]]))
        2.0
    """
    return float((_nearest(a, b)[0].mean() + _nearest(b, a)[0].mean()) / 2)


def f_score(a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "M 3"], distance: float) -> float:
    """Compute the F-score of two point sets: the harmonic mean of precision and recall at a distance.

    Args:
        a: N 3.
        b: M 3.
        distance: at which a point has a neighbour in the other set.

    Returns:
        In [0, 1].

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.metrics import f_score
        >>> round(f_score(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), np.zeros((1, 3)), 0.1), 4)
        0.6667
    """
    precision = float((_nearest(a, b)[0] <= distance).mean())
    recall = float((_nearest(b, a)[0] <= distance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def normal_consistency(
    a: Float[np.ndarray, "N 3"],
    normals_a: Float[np.ndarray, "N 3"],
    b: Float[np.ndarray, "M 3"],
    normals_b: Float[np.ndarray, "M 3"],
) -> float:
    """Compute the normal consistency of two point sets: the mean |cosine| between each normal and the nearest point's.

    The mean of both directions (Mescheder et al. 2019, Occupancy Networks). The sign does not count, so that wrongly
    wound faces do not either.

    Args:
        a: N 3.
        normals_a: N 3, unit.
        b: M 3.
        normals_b: M 3, unit.

    Returns:
        In [0, 1]: 1 = parallel everywhere; 0.5 is what random directions have.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.metrics import normal_consistency
        >>> x, point = np.array([[1.0, 0.0, 0.0]]), np.zeros((1, 3))
        >>> round(normal_consistency(point, x, point, np.array([[0.6, 0.8, 0.0]])), 6)
        0.6
    """
    cosines = [
        np.abs((n * m[_nearest(p, q)[1]]).sum(-1)).mean()
        for p, n, q, m in ((a, normals_a, b, normals_b), (b, normals_b, a, normals_a))
    ]
    return float(np.mean(cosines))


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def __call__(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        return self.scale * points @ self.rotation.T + self.translation


def fit_similarity(source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"]) -> Similarity:
    """Fit the least-squares similarity between corresponding points (Umeyama 1991).

    Args:
        source: N 3.
        target: N 3.

    Returns:
        The map from source to target.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.metrics import fit_similarity
        >>> points = np.random.default_rng(0).random((8, 3))
        >>> round(fit_similarity(points, 2 * points + 1).scale, 6)
        2.0
    """
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = source - mean_s, target - mean_t
    u, singular, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = float((singular * sign).sum() / (s**2).sum(1).mean())
    return Similarity(scale, rotation, mean_t - scale * rotation @ mean_s)


def align_similarity(
    source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "M 3"], yaws: int = 4, iterations: int = 60
) -> Similarity:
    """Align two point clouds by iterated closest points in both directions.

    Args:
        source: N 3.
        target: M 3.
        yaws: initial rotations about z that are tried.
        iterations: for each of them.

    Returns:
        The best map from source to target.
    """
    spread = [np.sqrt(((p - p.mean(0)) ** 2).sum(1).mean()) for p in (source, target)]
    scale = float(spread[1] / spread[0])
    best, best_error = Similarity(1.0, np.eye(3), np.zeros(3)), np.inf
    for k in range(yaws):
        angle = 2 * np.pi * k / yaws
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        current = Similarity(scale, rotation, target.mean(0) - scale * rotation @ source.mean(0))
        for _ in range(iterations):
            moved = current(source)
            to_target, to_source = _nearest(moved, target)[1], _nearest(target, moved)[1]
            pairs = np.concatenate([source, source[to_source]]), np.concatenate([target[to_target], target])
            current = fit_similarity(*pairs)
        error = chamfer(current(source), target)
        if error < best_error:
            best, best_error = current, error
    return best


# ---------------------------------------------------------------- solids


@numba.njit(cache=True)
def _crossings(corners, lower, cell, n, winding):  # type: ignore[no-untyped-def]
    """Add, per column along the last axis, the sign of every crossed face to the first voxel centre above it."""
    for f in range(corners.shape[0]):
        ax, ay, az = (corners[f, 0, 0] - lower[0]) / cell, (corners[f, 0, 1] - lower[1]) / cell, corners[f, 0, 2]
        bx, by, bz = (corners[f, 1, 0] - lower[0]) / cell, (corners[f, 1, 1] - lower[1]) / cell, corners[f, 1, 2]
        cx, cy, cz = (corners[f, 2, 0] - lower[0]) / cell, (corners[f, 2, 1] - lower[1]) / cell, corners[f, 2, 2]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0:
            continue
        x0, x1 = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0), min(int(np.floor(max(ax, bx, cx) - 0.5)), n - 1)
        y0, y1 = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0), min(int(np.floor(max(ay, by, cy) - 0.5)), n - 1)
        for x in range(x0, x1 + 1):
            for y in range(y0, y1 + 1):
                px, py = x + 0.5, y + 0.5
                wa = ((bx - px) * (cy - py) - (cx - px) * (by - py)) / area
                wb = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) / area
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                z = (wa * az + wb * bz + wc * cz - lower[2]) / cell
                k = min(max(int(np.ceil(z - 0.5)), 0), n)
                winding[x, y, k] += 1 if area < 0.0 else -1


def voxelize(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    lower: Float[np.ndarray, "3"],
    size: float,
    n: int,
) -> Bool[np.ndarray, "n n n"]:
    """Find the voxels of a cube whose centres lie inside a closed mesh.

    Args:
        vertices: V 3.
        faces: F 3.
        lower: 3, corner of the cube.
        size: edge of the cube.
        n: voxels per edge.

    Returns:
        n n n, True inside.
    """
    cell = size / n
    # A tiny irrational shift keeps columns off edges of axis-aligned boxes.
    shift = cell * 1e-4 * np.array([np.sqrt(2.0), np.sqrt(3.0), np.sqrt(5.0)])
    corners = np.asarray(vertices, np.float64)[faces] + shift
    votes = np.zeros((n, n, n), np.int8)
    for axis in range(3):
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]
        winding = np.zeros((n, n, n + 1), np.int32)
        _crossings(np.ascontiguousarray(corners[:, :, order]), np.asarray(lower, np.float64)[order], cell, n, winding)
        inside = np.cumsum(winding, axis=2)[:, :, :n] != 0
        votes += np.transpose(inside, np.argsort(order))
    return votes >= 2


def common_cube(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> tuple[Float[np.ndarray, "3"], float]:
    """Compute a cube around two meshes.

    Args:
        a: vertices and faces.
        b: vertices and faces.

    Returns:
        3, the lower corner, and the edge.
    """
    both = np.concatenate([a[0][np.unique(a[1])], b[0][np.unique(b[1])]])
    size = float((both.max(0) - both.min(0)).max()) * 1.02
    return (both.max(0) + both.min(0)) / 2 - size / 2, size


def volume_iou(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], resolution: int = 128) -> float:
    """Compute the intersection over union of two solids on a grid around both.

    Args:
        a: vertices and faces of a closed mesh.
        b: vertices and faces of a closed mesh.
        resolution: voxels per edge.

    Returns:
        In [0, 1].
    """
    lower, size = common_cube(a, b)
    return mask_iou(voxelize(*a, lower, size, resolution), voxelize(*b, lower, size, resolution))


def silhouette_iou(a: Mesh, b: Mesh, cameras: Cameras) -> float:
    """Compare the silhouettes of two meshes.

    Args:
        a: a mesh.
        b: a mesh.
        cameras: B views.

    Returns:
        Mean intersection over union over the views.
    """
    views = [cameras.select(slice(i, i + 1)) for i in range(len(cameras))]
    return float(np.mean([mask_iou(view_fragments(a, v).hit, view_fragments(b, v).hit) for v in views]))


# ---------------------------------------------------------------- texture layout


@dataclass(frozen=True)
class UvHealth:
    """How well a texture layout uses its texels."""

    coverage: float
    """Share of texels that show surface."""
    stretch: float
    """L2 stretch of Sander et al. 2001, normalised: 1 = every face gets texels in proportion and undistorted."""
    overlap: float
    """Share of charted area that lies under another face."""


def uv_health(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], uvs: Float[np.ndarray, "V 2"], size: int = 1024
) -> UvHealth:
    """Measure the quality of a texture layout.

    Args:
        vertices: V 3.
        faces: F 3.
        uvs: V 2 in [0, 1].
        size: edge of the texture in texels.

    Returns:
        Coverage, stretch and overlap.
    """
    p, q = vertices[faces], uvs[faces]
    e1, e2 = q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]
    double_uv = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    world = np.linalg.norm(face_normals(vertices, faces), axis=1) / 2
    uv_area = np.abs(double_uv) / 2
    valid = (uv_area > 1e-14) & (world > 1e-14)
    d1, d2, inverse = (p[:, 1] - p[:, 0])[valid], (p[:, 2] - p[:, 0])[valid], 1 / double_uv[valid][:, None]
    # Columns of the Jacobian of the map from the texture to the surface.
    du = (d1 * e2[valid][:, 1:] - d2 * e1[valid][:, 1:]) * inverse
    dv = (d2 * e1[valid][:, :1] - d1 * e2[valid][:, :1]) * inverse
    squared = ((du**2).sum(1) + (dv**2).sum(1)) / 2
    mean = (squared * world[valid]).sum() / world[valid].sum()
    stretch = np.sqrt(mean * uv_area[valid].sum() / world[valid].sum())
    coverage = float(texel_fragments(uvs, faces, size).hit.mean())
    overlap = max(0.0, 1 - coverage / max(float(uv_area.sum()), 1e-12))
    return UvHealth(coverage, float(stretch), overlap)
