"""Distances between two images, surfaces or solids, and quality of a texture layout. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Bool, Float, Int

from zero123s.mesh.processing import face_normals
from zero123s.mesh.texture import texel_fragments
from zero123s.ops.rasterization.software import view_fragments
from zero123s.structures import Cameras, Mesh

HALF_STEP = 0.5 / 255
"""Of an 8-bit image."""

# ---------------------------------------------------------------- images


def psnr(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."], max_db: float = 100.0) -> float:
    """Return the peak signal-to-noise ratio in dB of two images in [0, 1]; equal images give `max_db`."""
    mse = float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
    return max_db if mse <= 10 ** (-max_db / 10) else -10 * np.log10(mse)


def ssim(a: Float[np.ndarray, "H W C"], b: Float[np.ndarray, "H W C"]) -> float:
    """Return the mean structural similarity of two images in [0, 1].

    Gaussian window of 11 pixels, sigma 1.5, K = (0.01, 0.03), population variances, as in Wang et al. 2004;
    pixels whose window leaves the image are not counted. Images are at least 11 pixels wide and high.
    """
    from scipy.ndimage import gaussian_filter

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (1.5, 1.5, 0), truncate=3.5)

    assert min(a.shape[:2]) >= 11
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    value = numerator / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(value[5:-5, 5:-5].mean())


def roughness(rgb: Float[np.ndarray, "H W 3"], mask: Float[np.ndarray, "H W"]) -> float:
    """Return the mean absolute Laplacian (four neighbours, colours in [0, 1]) inside an object, its outline left out.

    Speckle raises it, blur lowers it; 0 for one flat colour, and where no pixel has four neighbours in the mask.
    """
    rgb, inside = np.asarray(rgb, np.float64), np.asarray(mask) > 0.5
    laplacian = rgb[:-2, 1:-1] + rgb[2:, 1:-1] + rgb[1:-1, :-2] + rgb[1:-1, 2:] - 4 * rgb[1:-1, 1:-1]
    whole = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:] & inside[1:-1, 1:-1]
    return float(np.abs(laplacian[whole]).mean()) if whole.any() else 0.0


def relative_roughness(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the mean `roughness` of views over that of the true ones; 1 = as detailed, more = mottled, less = smeared.

    Half an 8-bit step is added to both: a flat object seen as a flat one has 1.
    """
    return (float(np.mean(ours)) + HALF_STEP) / (float(np.mean(theirs)) + HALF_STEP)


def mask_iou(a: np.ndarray, b: np.ndarray, threshold: float = 0.5) -> float:
    """Return intersection over union of two masks or coverages; two empty ones give 1."""
    a, b = np.asarray(a) > threshold, np.asarray(b) > threshold
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


# ---------------------------------------------------------------- surfaces


def sample_corners(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], n: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """Return n points spread evenly by area as the vertices of their faces and the weights of these."""
    area = np.linalg.norm(face_normals(vertices, faces), axis=1)
    chosen = faces[rng.choice(len(faces), n, p=area / area.sum())]
    u, v = np.sqrt(rng.random(n)), rng.random(n)
    return chosen, np.stack([1 - u, u * (1 - v), u * v], -1)


def sample_surface(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], n: int, rng: np.random.Generator
) -> Float[np.ndarray, "N 3"]:
    """Return n points spread evenly by area."""
    corners, weights = sample_corners(vertices, faces, n, rng)
    return np.einsum("nc,ncd->nd", weights, vertices[corners])


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import cKDTree

    distance, index = cKDTree(b).query(a)
    return np.asarray(distance), np.asarray(index)


def chamfer(a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "M 3"]) -> float:
    """Return the mean of both mean nearest-neighbour distances (not squared), in the points' unit."""
    return float((_nearest(a, b)[0].mean() + _nearest(b, a)[0].mean()) / 2)


def f_score(a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "M 3"], distance: float) -> float:
    """Return the harmonic mean of the shares of points that have a neighbour within `distance`."""
    precision = float((_nearest(a, b)[0] <= distance).mean())
    recall = float((_nearest(b, a)[0] <= distance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def __call__(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        return self.scale * points @ self.rotation.T + self.translation


def fit_similarity(source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"]) -> Similarity:
    """Return the least-squares similarity that maps corresponding points (Umeyama 1991)."""
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
    """Return the similarity that brings a cloud onto another: iterated closest points in both directions.

    Starts from equal centres and sizes at `yaws` turns about z; the start that ends closest wins.
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
    """Return which voxel centres of a cube with edge `size` lie inside.

    Inside = non-zero winding along at least two of the three axes, so that holes and overlapping parts do little harm.
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
    """Return the lower corner and the edge of a cube around two meshes (vertices, faces)."""
    both = np.concatenate([a[0][np.unique(a[1])], b[0][np.unique(b[1])]])
    size = float((both.max(0) - both.min(0)).max()) * 1.02
    return (both.max(0) + both.min(0)) / 2 - size / 2, size


def volume_iou(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], resolution: int = 128) -> float:
    """Return intersection over union of two solids (vertices, faces), on a grid around both."""
    lower, size = common_cube(a, b)
    return mask_iou(voxelize(*a, lower, size, resolution), voxelize(*b, lower, size, resolution))


def silhouette_iou(a: Mesh, b: Mesh, cameras: Cameras) -> float:
    """Return the mean silhouette IoU over the views."""
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
    """Measure texture coordinates at a texture of `size` texels."""
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
