"""Parametric solids, and the builder that assembles and paints them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zero123s.mesh.scene_mesh import Paint, SceneMesh, Texture, vertex_normals

Numbers = Sequence[Any] | NDArray | float
"""Numbers in any nesting that numpy converts to an array."""


class Solid(NamedTuple):
    """Triangles with normals, in the solid's own coordinates."""

    vertices: NDArray
    faces: NDArray
    normals: NDArray
    uv: NDArray | None = None
    """V 2, v upwards, where the solid can be textured."""


def _grid_faces(rows: int, columns: int, wrap: bool) -> NDArray:
    """Return the triangles of a grid of vertices; `wrap` joins the last column to the first."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])


def _solid(vertices: Numbers, faces: NDArray) -> Solid:
    v = np.asarray(vertices, np.float64)
    return Solid(v, faces, vertex_normals(v, faces))


def lathe(profile: Numbers, segments: int = 28, crease_deg: float = 40.0) -> Solid:
    """Return the surface of revolution about z of a profile (N 2: radius, height), listed from bottom to top outside.

    Rings where the profile turns by more than `crease_deg` are doubled, so they shade as edges.
    """
    p = np.asarray(profile, np.float64)
    step = np.diff(p, axis=0)
    angle = np.arctan2(step[:, 1], step[:, 0])
    turn = np.abs((np.diff(angle) + np.pi) % (2 * np.pi) - np.pi) > np.deg2rad(crease_deg)
    runs = np.split(np.arange(len(p) - 1), np.flatnonzero(turn) + 1)
    phi = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    vertices, faces, normals, offset = [], [], [], 0
    for run in runs:
        ring = p[run[0] : run[-1] + 2]
        r, z = ring[:, :1], ring[:, 1:]
        v = np.stack([r * np.cos(phi), r * np.sin(phi), np.broadcast_to(z, (len(ring), segments))], -1).reshape(-1, 3)
        f = _grid_faces(len(ring), segments, wrap=True)
        slope = np.gradient(ring, axis=0) if len(ring) > 2 else np.repeat(np.diff(ring, axis=0), 2, axis=0)
        n2 = np.stack([slope[:, 1], -slope[:, 0]], -1)
        n2 /= np.maximum(np.linalg.norm(n2, axis=-1, keepdims=True), 1e-12)
        nr, nz = n2[:, :1], n2[:, 1:]
        normals.append(np.stack([nr * np.cos(phi), nr * np.sin(phi), nz + 0 * phi], -1).reshape(-1, 3))
        vertices.append(v)
        faces.append(f + offset)
        offset += len(v)
    return Solid(np.concatenate(vertices), np.concatenate(faces), np.concatenate(normals))


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 24, bevel: float = 0.0) -> Solid:
    """Return a closed cylinder or cone frustum centred at the origin along z."""
    h, t = height / 2, radius if top is None else top
    b = min(bevel, 0.9 * radius, 0.9 * max(t, bevel), 0.45 * height)
    if b > 0 and t > b:
        profile = [(0, -h), (radius - b, -h), (radius, -h + b), (t, h - b), (t - b, h), (0, h)]
    else:
        profile = [(0, -h), (radius, -h), (t, h), (0, h)]
    return lathe([q for i, q in enumerate(profile) if i == 0 or q != profile[i - 1]], segments)


def ellipsoid(rx: float, ry: float, rz: float, rows: int = 14, segments: int = 24) -> Solid:
    """Return an ellipsoid centred at the origin."""
    t = np.linspace(-np.pi / 2, np.pi / 2, rows)
    sphere = lathe(np.stack([np.cos(t), np.sin(t)], -1), segments, crease_deg=180)
    v = sphere.vertices * [rx, ry, rz]
    n = sphere.vertices / np.array([rx, ry, rz])
    return Solid(v, sphere.faces, n / np.linalg.norm(n, axis=-1, keepdims=True))


def torus(radius: float, tube_radius: float, segments: int = 32, sides: int = 12, squash: float = 1.0) -> Solid:
    """Return a torus around z; `squash` scales its height."""
    t = np.linspace(-np.pi, np.pi, sides + 1)
    return lathe(
        np.stack([radius + tube_radius * np.cos(t), squash * tube_radius * np.sin(t)], -1), segments, crease_deg=180
    )


def box(x: float, y: float, z: float, bevel: float = 0.02) -> Solid:
    """Return a box with rounded edges, centred at the origin; sizes are full lengths."""
    half = 0.5 * np.array([x, y, z])
    b = min(bevel, 0.9 * float(half.min()))
    quarter = np.deg2rad([0, 45, 90])
    phi = np.concatenate([quarter + q * np.pi / 2 for q in range(4)])
    theta = np.concatenate([quarter - np.pi / 2, quarter])
    column = np.repeat(np.deg2rad([45, 135, 225, 315]), 3)
    corner = np.sign(np.stack([np.cos(column), np.sin(column)], -1))
    ct, st = np.cos(theta)[:, None], np.sin(theta)[:, None]
    d = np.stack([ct * np.cos(phi), ct * np.sin(phi), st + 0 * phi], -1)
    s = np.stack(
        [
            np.broadcast_to(corner[:, 0], (6, 12)),
            np.broadcast_to(corner[:, 1], (6, 12)),
            np.repeat([-1.0, 1.0], 3)[:, None] + np.zeros(12),
        ],
        -1,
    )
    v = (s * (half - b) + b * d).reshape(-1, 3)
    top, bottom = 60 + np.array([1, 4, 7, 10]), np.array([1, 4, 7, 10])
    caps = [[top[0], top[1], top[2]], [top[0], top[2], top[3]]]
    caps += [[bottom[0], bottom[2], bottom[1]], [bottom[0], bottom[3], bottom[2]]]
    return Solid(v, np.concatenate([_grid_faces(6, 12, wrap=True), np.array(caps)]), d.reshape(-1, 3))


def tube(path: Numbers, radius: Numbers, sides: int = 12) -> Solid:
    """Return a round tube along a path (N 3) with one radius or N radii, its ends closed by half spheres."""
    p = np.asarray(path, np.float64)
    r = np.broadcast_to(np.asarray(radius, np.float64), len(p))
    tangent = np.gradient(p, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-12)
    cap = np.deg2rad([90, 60, 30])
    first = (p[0] - tangent[0] * r[0] * np.sin(cap)[:, None], r[0] * np.cos(cap), np.repeat(tangent[:1], 3, 0))
    last = (
        p[-1] + tangent[-1] * r[-1] * np.sin(cap[::-1])[:, None],
        r[-1] * np.cos(cap[::-1]),
        np.repeat(tangent[-1:], 3, 0),
    )
    p, r, tangent = (np.concatenate([a, m, z]) for a, m, z in zip(first, (p, r, tangent), last, strict=True))
    axis = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    phi = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    rings = []
    for center, size, direction in zip(p, r, tangent, strict=True):
        axis = axis - direction * (axis @ direction)  # parallel transport keeps the tube from twisting
        axis /= np.linalg.norm(axis)
        other = np.cross(direction, axis)
        rings.append(center + size * (np.cos(phi)[:, None] * axis + np.sin(phi)[:, None] * other))
    return _solid(np.concatenate(rings), _grid_faces(len(p), sides, wrap=True))


def capsule(start: Sequence[float], end: Sequence[float], radius: float, end_radius: float | None = None) -> Solid:
    """Return a straight tube with round ends."""
    last = radius if end_radius is None else end_radius
    return tube([start, end], [radius, last])


def extrude(outline: Numbers, depth: float) -> Solid:
    """Return a prism along y, centred at y = 0, over an outline (N 2: x, z) star-shaped about its mean."""
    o = np.asarray(outline, np.float64)
    area = np.sum(o[:, 0] * np.roll(o[:, 1], -1) - np.roll(o[:, 0], -1) * o[:, 1])
    o = o if area > 0 else o[::-1]
    n, following = len(o), np.roll(np.arange(len(o)), -1)

    def at(y: float) -> NDArray:
        return np.stack([o[:, 0], np.full(n, y), o[:, 1]], -1)

    def mean(y: float) -> NDArray:
        return np.array([[o[:, 0].mean(), y, o[:, 1].mean()]])

    h, i = depth / 2, np.arange(n)
    v = np.concatenate([at(-h), mean(-h), at(h), mean(h)])
    front = np.stack([i, following, np.full(n, n)], -1)
    back = np.stack([following, i, np.full(n, n)], -1) + n + 1
    near, far = at(-h), at(h)
    side = np.stack([near, near[following], far[following], far], 1).reshape(-1, 3)
    q = 4 * i[:, None] + len(v)
    sides = np.concatenate([q + np.array([0, 2, 1]), q + np.array([0, 3, 2])])
    return _solid(np.concatenate([v, side]), np.concatenate([front, back, sides]))


def sheet(width: float, height: float, bend_deg: float = 0.0) -> Solid:
    """Return a thin textured rectangle that faces +x, width along y; bent about z if `bend_deg` > 0.

    A bent sheet is the part of a cylinder about z that spans `bend_deg`; `width` is its arc length.
    """
    columns = 2 if bend_deg <= 0 else 2 + int(bend_deg / 12)
    u, v = np.meshgrid(np.linspace(0, 1, columns), [0.0, 1.0])
    across, z = (u - 0.5).ravel() * width, (v - 0.5).ravel() * height
    if bend_deg > 0:
        radius = width / np.deg2rad(bend_deg)
        xy = np.stack([radius * np.cos(across / radius), radius * np.sin(across / radius)], -1)
        normals = np.stack([xy[:, 0] / radius, xy[:, 1] / radius, 0 * z], -1)
    else:
        xy, normals = np.stack([0 * across, across], -1), np.tile([1.0, 0.0, 0.0], (len(z), 1))
    faces = _grid_faces(2, columns, wrap=False)
    return Solid(np.column_stack([xy, z]), faces, normals, np.stack([u.ravel(), v.ravel()], -1))


def wrapped(solid: Solid, repeat: float = 1.0) -> Solid:
    """Return the solid with texture coordinates: the angle about z, and the height relative to its extent.

    The seam of the angle lies at the back (-x), where faces that cross it are closed with copies of their vertices.
    """
    v = solid.vertices
    z = (v[:, 2] - v[:, 2].min()) / max(float(np.ptp(v[:, 2])), 1e-12)
    u = np.arctan2(v[:, 1], v[:, 0]) / (2 * np.pi) + 0.5
    crossing = np.ptp(u[solid.faces], axis=1) > 0.5
    corners = solid.faces[crossing].ravel()
    faces = solid.faces.copy()
    faces[crossing] = len(v) + np.arange(len(corners)).reshape(-1, 3)
    uv = np.stack([np.concatenate([u, u[corners] + (u[corners] < 0.5)]), np.concatenate([z, z[corners]])], -1)
    both = np.concatenate([np.arange(len(v)), corners])
    return Solid(v[both], faces, solid.normals[both], uv * [repeat, 1.0])


def scaled(solid: Solid, x: float, y: float, z: float) -> Solid:
    """Return the solid stretched along its axes."""
    n = solid.normals / [x, y, z]
    n /= np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-12)
    return solid._replace(vertices=solid.vertices * [x, y, z], normals=n)


def rotation(rx: float = 0.0, ry: float = 0.0, rz: float = 0.0) -> NDArray:
    """Return the rotation matrix about x, then y, then z, by angles in degrees."""
    a, b, c = np.deg2rad([rx, ry, rz])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


class Builder:
    """Collects painted solids; `mirror` adds the reflection in the plane y = 0 too."""

    def __init__(self) -> None:
        self.solids: list[Solid] = []
        self.coords: list[NDArray] = []
        self.paint_index: list[NDArray] = []
        self.paints: list[Paint] = []
        self.texture_index: list[NDArray] = []
        self.textures: list[Texture] = []

    def add(
        self,
        solid: Solid,
        paint: Paint,
        at: Numbers = (0, 0, 0),
        turn: Numbers = (0, 0, 0),
        mirror: bool = False,
        texture: Texture | None = None,
    ) -> None:
        """Place a solid, turned by (rx, ry, rz) degrees and then moved to `at`.

        `texture` multiplies the paint's colour; the solid then needs texture coordinates (`sheet`, `wrapped`).
        """
        if paint not in self.paints:
            self.paints.append(paint)
        index = self.paints.index(paint)
        if texture is not None:
            assert solid.uv is not None, "a textured solid needs texture coordinates"
            self.textures.append(texture)
        rx, ry, rz = np.asarray(turn, np.float64)
        r = rotation(rx, ry, rz)
        v, n = solid.vertices @ r.T + np.asarray(at), solid.normals @ r.T
        placed = [Solid(v, solid.faces, n, solid.uv)]
        if mirror:
            flip = np.array([1, -1, 1])
            placed.append(Solid(v * flip, solid.faces[:, ::-1], n * flip, solid.uv))
        for one in placed:
            self.solids.append(one)
            self.coords.append(solid.vertices)
            self.paint_index.append(np.full(len(solid.faces), index, np.int32))
            used = -1 if texture is None else len(self.textures) - 1
            self.texture_index.append(np.full(len(solid.faces), used, np.int32))

    def build(self, name: str) -> SceneMesh:
        """Return everything placed so far as one mesh."""
        starts = np.cumsum([0, *[len(s.vertices) for s in self.solids]])
        vertices = np.concatenate([s.vertices for s in self.solids]).astype(np.float32)
        faces = np.concatenate([s.faces + o for s, o in zip(self.solids, starts, strict=False)]).astype(np.int32)
        return SceneMesh(
            vertices=vertices,
            faces=np.ascontiguousarray(faces),
            normals=np.concatenate([s.normals for s in self.solids]).astype(np.float32),
            paint_of_face=np.concatenate(self.paint_index),
            paints=tuple(self.paints),
            pattern_coords=np.concatenate(self.coords).astype(np.float32),
            vertex_colors=np.ones_like(vertices),
            name=name,
            **self._texturing(),
        )

    def _texturing(self) -> dict[str, Any]:
        if not self.textures:
            return {}
        uv = [np.zeros((len(s.vertices), 2)) if s.uv is None else s.uv for s in self.solids]
        return {
            "uv": np.concatenate(uv).astype(np.float32),
            "texture_of_face": np.concatenate(self.texture_index),
            "textures": tuple(self.textures),
        }
