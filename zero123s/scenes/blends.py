"""Smooth bodies: the smooth union of tapered capsules, extracted as one surface and painted by part."""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from zero123s.mesh.scene_mesh import Paint, vertex_normals
from zero123s.scenes.primitives import Builder, Solid

Point = tuple[float, float, float]


class Bone(NamedTuple):
    """A capsule from `start` to `end` with its own radius at each end."""

    start: Point
    end: Point
    radius: float
    end_radius: float
    paint: Paint
    mirror: bool = False
    """Whether it stands for its reflection in the plane y = 0 too."""


def ball(at: Point, radius: float, paint: Paint, mirror: bool = False) -> Bone:
    """Return a sphere as a bone."""
    return Bone(at, at, radius, radius, paint, mirror)


def add_blend(
    b: Builder,
    bones: Sequence[Bone],
    smooth: float = 0.05,
    cells: int = 38,
    scale: Point = (1.0, 1.0, 1.0),
    at: Point = (0.0, 0.0, 0.0),
    turn: Point = (0.0, 0.0, 0.0),
) -> None:
    """Place the smooth union of the bones, mirror symmetric in y, each face painted as the bone that it is nearest to.

    Args:
        b: where it is added.
        bones: those off the plane y = 0 need `mirror`; without it, only their half y >= 0 counts for both sides.
        smooth: radius of the fillets between bones.
        cells: number of grid cells along the longest axis.
        scale: stretches the finished surface along x, y, z.
        at: where its origin goes.
        turn: degrees about x, y, z, as in `Builder.add`.
    """
    solid, nearest = blend(bones, smooth, cells)
    solid = Solid(solid.vertices * scale, solid.faces, vertex_normals(solid.vertices * scale, solid.faces))
    paints = list(dict.fromkeys(bone.paint for bone in bones))
    paint_of_face = np.array([paints.index(bone.paint) for bone in bones])[nearest]
    for i, paint in enumerate(paints):
        faces = solid.faces[paint_of_face == i]
        if len(faces):
            used, compact = np.unique(faces, return_inverse=True)
            b.add(Solid(solid.vertices[used], compact.reshape(-1, 3), solid.normals[used]), paint, at, turn)


def blend(bones: Sequence[Bone], smooth: float, cells: int) -> tuple[Solid, NDArray[np.int64]]:
    """Return the surface of the smooth union and the nearest bone of every face."""
    from skimage.measure import marching_cubes

    table = np.array([[*bone.start, *bone.end, bone.radius, bone.end_radius] for bone in bones], np.float32)
    ends = np.concatenate([table[:, :3], table[:, 3:6]])
    ends[:, 1] = np.abs(ends[:, 1])
    reach = np.concatenate([table[:, 6], table[:, 7]])[:, None] + 0.5 * smooth
    high = (ends + reach).max(axis=0)
    low = (ends - reach).min(axis=0)
    low[1] = -high[1]
    step = float((high - low).max()) / cells
    half = int(np.ceil(high[1] / step)) + 2
    shape = (int(np.ceil((high[0] - low[0]) / step)) + 4, half, int(np.ceil((high[2] - low[2]) / step)) + 4)
    origin = np.array([low[0] - 1.5 * step, 0.5 * step, low[2] - 1.5 * step], np.float32)
    distance = np.empty(shape, np.float32)
    _smooth_union(table, origin, step, smooth, distance)
    whole = np.concatenate([distance[:, ::-1], distance], axis=1)
    vertices, faces, _, _ = marching_cubes(whole, 0.0, gradient_direction="ascent")
    vertices = origin + step * (vertices - [0, half, 0])
    middle = vertices[faces].mean(axis=1)
    middle[:, 1] = np.abs(middle[:, 1])
    faces = np.ascontiguousarray(faces[:, ::-1])
    solid = Solid(vertices, faces, vertex_normals(vertices, faces))
    return solid, np.argmin(_distances(table, middle.astype(np.float32)), axis=1)


def _distances(table: NDArray, points: NDArray) -> NDArray:
    """Return the distance of every point (P 3) to every bone, P K."""
    start, along = table[:, :3], table[:, 3:6] - table[:, :3]
    squared = np.maximum((along**2).sum(-1), 1e-12)
    off = points[:, None] - start
    t = np.clip((off * along).sum(-1) / squared, 0, 1)
    radius = table[:, 6] + t * (table[:, 7] - table[:, 6])
    return np.linalg.norm(off - t[..., None] * along, axis=-1) - radius


@numba.njit(cache=True, fastmath=True)
def _smooth_union(table, origin, step, smooth, out):
    """Fill `out` with the polynomial smooth minimum (Quilez) of the bones' signed distances."""
    for i in range(out.shape[0]):
        x = origin[0] + step * i
        for j in range(out.shape[1]):
            y = origin[1] + step * j
            for k in range(out.shape[2]):
                z = origin[2] + step * k
                total = np.float32(1e3)
                for n in range(len(table)):
                    b = table[n]
                    ax, ay, az = b[3] - b[0], b[4] - b[1], b[5] - b[2]
                    px, py, pz = x - b[0], y - b[1], z - b[2]
                    t = (px * ax + py * ay + pz * az) / max(ax * ax + ay * ay + az * az, 1e-12)
                    t = min(max(t, 0.0), 1.0)
                    dx, dy, dz = px - t * ax, py - t * ay, pz - t * az
                    d = np.sqrt(dx * dx + dy * dy + dz * dz) - b[6] - t * (b[7] - b[6])
                    h = max(smooth - abs(total - d), 0.0) / smooth
                    total = min(total, d) - 0.25 * h * h * smooth
                out[i, j, k] = total
