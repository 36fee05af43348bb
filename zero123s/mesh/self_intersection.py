"""Finds the faces of a mesh that intersect other faces."""

import numba
import numpy as np
from jaxtyping import Bool, Float, Int


@numba.njit(cache=True)
def _pierces(a, b, p, q, r):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Whether the open segment a b crosses the open triangle p q r (Moeller and Trumbore 1997)."""
    e1, e2, d = q - p, r - p, b - a
    h = np.cross(d, e2)
    det = (e1 * h).sum()
    if abs(det) < 1e-18:
        return False  # parallel: touching in a plane is not a crossing
    s = a - p
    u = (s * h).sum() / det
    if u <= 1e-7 or u >= 1 - 1e-7:
        return False
    k = np.cross(s, e1)
    v = (d * k).sum() / det
    if v <= 1e-7 or u + v >= 1 - 1e-7:
        return False
    t = (e2 * k).sum() / det
    return 1e-7 < t < 1 - 1e-7


@numba.njit(cache=True)
def _cross_pair(t, s):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for i in range(3):
        j = (i + 1) % 3
        if _pierces(t[i], t[j], s[0], s[1], s[2]) or _pierces(s[i], s[j], t[0], t[1], t[2]):
            return True
    return False


@numba.njit(cache=True)
def _mark(corners, faces, low, high, n, start, members, marked):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill the cells' member lists, then test the pairs of every cell."""
    fill = start[:-1].copy()
    for f in range(len(faces)):
        for x in range(low[f, 0], high[f, 0] + 1):
            for y in range(low[f, 1], high[f, 1] + 1):
                for z in range(low[f, 2], high[f, 2] + 1):
                    cell = (x * n + y) * n + z
                    members[fill[cell]] = f
                    fill[cell] += 1
    for cell in range(len(start) - 1):
        for i in range(start[cell], start[cell + 1]):
            f = members[i]
            for j in range(i + 1, start[cell + 1]):
                g = members[j]
                if marked[f] and marked[g]:
                    continue
                apart, shared = False, False
                for axis in range(3):
                    apart |= corners[f, :, axis].min() > corners[g, :, axis].max()
                    apart |= corners[g, :, axis].min() > corners[f, :, axis].max()
                    for k in range(3):
                        shared |= faces[f, axis] == faces[g, k]
                if not apart and not shared and _cross_pair(corners[f], corners[g]):
                    marked[f] = True
                    marked[g] = True


@numba.njit(cache=True)
def _count(low, high, n, counts):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for f in range(len(low)):
        for x in range(low[f, 0], high[f, 0] + 1):
            for y in range(low[f, 1], high[f, 1] + 1):
                for z in range(low[f, 2], high[f, 2] + 1):
                    counts[(x * n + y) * n + z] += 1


def self_intersecting(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Bool[np.ndarray, "F"]:
    """Find the faces that cross another face with which they share no vertex (Moeller and Trumbore 1997).

    Faces that only touch, or overlap in one plane, do not count.

    Args:
        vertices: V 3; those at one position count as one.
        faces: F 3.

    Returns:
        F, whether the face crosses another.
    """
    if len(faces) == 0:
        return np.zeros(0, bool)
    unique, inverse = np.unique(np.asarray(vertices, np.float32), axis=0, return_inverse=True)
    joined = np.ascontiguousarray(inverse.reshape(-1)[np.asarray(faces)], np.int64)
    points = unique.astype(np.float64)
    lower, extent = points[joined].min((0, 1)), float(np.ptp(points[joined].reshape(-1, 3), axis=0).max())
    corners = np.ascontiguousarray((points[joined] - lower) / max(extent, 1e-30))
    edge = float(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).mean())
    n = int(np.clip(0.5 / max(edge, 1e-6), 1, 128))
    low = np.minimum((corners.min(1) * n).astype(np.int64), n - 1)
    high = np.minimum((corners.max(1) * n).astype(np.int64), n - 1)
    counts = np.zeros(n**3, np.int64)
    _count(low, high, n, counts)
    start = np.concatenate([[0], np.cumsum(counts)])
    marked = np.zeros(len(faces), np.bool_)
    _mark(corners, joined, low, high, n, start, np.empty(start[-1], np.int64), marked)
    return marked
