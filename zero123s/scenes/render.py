"""Fast CPU ray casting of a SceneMesh with embree.

Rays are cast only inside each view's projected bounding rectangle, all views of a call in one batch; a compiled loop
shades the hits. Light: an ambient term that is a little stronger from above, and one soft directional light fixed to
the object. Shading multiplies sRGB values directly; it is not physically based.
"""

from dataclasses import dataclass

import numba
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from zero123s.mesh.scene_mesh import PATTERNS, SceneMesh
from zero123s.structures import Cameras


@dataclass(frozen=True)
class Light:
    """Soft light of one object."""

    direction: tuple[float, float, float] = (0.45, 0.35, 0.82)
    """Unit vector towards the light, in the object's world."""
    ambient: float = 0.74
    sky: float = 0.10
    """Extra ambient light from straight above, relative to that from the side."""
    diffuse: float = 0.30


@dataclass(frozen=True)
class Renders:
    """Images of B views; where nothing was hit all values are 0."""

    rgba: NDArray[np.float32]
    """B H W 4, straight alpha, sRGB in [0, 1]."""
    depth: NDArray[np.float32] | None = None
    """B H W, mean distance along the rays that hit."""
    normal: NDArray[np.float32] | None = None
    """B H W 3, world-space unit normals."""


def random_light(rng: np.random.Generator) -> Light:
    """Return ambient-dominated light from a random direction of the upper hemisphere."""
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.95)
    flat = np.sqrt(1 - height**2)
    direction = (float(flat * np.cos(azimuth)), float(flat * np.sin(azimuth)), float(height))
    diffuse = rng.uniform(0.12, 0.42)
    return Light(direction, ambient=float(rng.uniform(0.97, 1.05) - 0.8 * diffuse), diffuse=float(diffuse))


def render_views(
    scene: SceneMesh, cameras: Cameras, light: Light | None = None, supersample: int = 2, geometry: bool = False
) -> Renders:
    """Return the views of a scene; `supersample`^2 rays a pixel, depth and normals too with `geometry`."""
    light = light or Light()
    height, width = cameras.height, cameras.width
    c2w = np.ascontiguousarray(cameras.c2w[:, :3].numpy(), np.float32)
    tangent = np.tan(np.deg2rad(cameras.fovy_deg.numpy()) / 2).astype(np.float32)
    rects = _rectangles(scene.vertices, c2w, tangent, height, width)
    embree = EmbreeScene()
    TriangleMesh(embree, scene.vertices, scene.faces)
    origins, directions = _rays(c2w, tangent, rects, height, width, supersample)
    views = len(c2w)
    channels = 8 if geometry else 4
    sums = np.zeros((views, height, width, channels), np.float32)
    if len(origins):
        hits = embree.run(origins, directions, output=True)
        face = hits["primID"].astype(np.int32)
        rgb = surface_colors(scene, face, hits["u"], hits["v"])
        _shade(
            sums, rects, supersample, directions, face, hits["u"], hits["v"], hits["tfar"],
            scene.vertices, scene.faces, scene.normals, rgb,
            np.array([*light.direction, light.ambient, light.sky, light.diffuse], np.float32),
        )  # fmt: skip
    return _finish(sums, supersample, geometry)


def _finish(sums: NDArray[np.float32], supersample: int, geometry: bool) -> Renders:
    count = sums[..., 3:4]
    safe = np.maximum(count, 1)
    rgba = np.concatenate([np.clip(sums[..., :3] / safe, 0, 1), count / supersample**2], axis=-1, dtype=np.float32)
    if not geometry:
        return Renders(rgba)
    length = np.maximum(np.linalg.norm(sums[..., 5:], axis=-1, keepdims=True), 1e-12)
    return Renders(rgba, (sums[..., 4] / safe[..., 0]).astype(np.float32), (sums[..., 5:] / length).astype(np.float32))


def _rectangles(vertices: NDArray, c2w: NDArray, tangent: NDArray, height: int, width: int) -> NDArray[np.int32]:
    """Return the pixel rectangle (y0, y1, x0, x1) that holds the projection of all vertices, B 4."""
    rects = np.zeros((len(c2w), 4), np.int32)
    for i, (pose, t) in enumerate(zip(c2w, tangent, strict=True)):
        local = (vertices - pose[:, 3]) @ pose[:, :3]
        depth = -local[:, 2]
        if depth.min() <= 1e-3:  # a vertex behind the camera: no rectangle bounds the projection
            rects[i] = 0, height, 0, width
            continue
        focal = 0.5 * height / t
        x = width / 2 + focal * local[:, 0] / depth
        y = height / 2 - focal * local[:, 1] / depth
        low = np.floor([y.min(), x.min()]).clip(0, [height, width])
        high = np.ceil([y.max(), x.max()]).clip(0, [height, width])
        rects[i] = low[0], high[0], low[1], high[1]
    return rects


def _rays(c2w: NDArray, tangent: NDArray, rects: NDArray, height: int, width: int, s: int) -> tuple[NDArray, NDArray]:
    sizes = (rects[:, 1] - rects[:, 0]) * (rects[:, 3] - rects[:, 2]) * s * s
    total = int(sizes.sum())
    origins, directions = np.empty((total, 3), np.float32), np.empty((total, 3), np.float32)
    _fill_rays(c2w, tangent, rects, height, width, s, origins, directions)
    return origins, directions


@numba.njit(cache=True, fastmath=True)
def _fill_rays(c2w, tangent, rects, height, width, s, origins, directions):
    k = 0
    for b in range(len(c2w)):
        m = c2w[b]
        focal = 0.5 * height / tangent[b]
        for y in range(rects[b, 0], rects[b, 1]):
            for x in range(rects[b, 2], rects[b, 3]):
                for sub in range(s * s):
                    dx = (x + (sub % s + 0.5) / s - 0.5 * width) / focal
                    dy = -(y + (sub // s + 0.5) / s - 0.5 * height) / focal
                    scale = 1.0 / np.sqrt(dx * dx + dy * dy + 1.0)
                    for c in range(3):
                        origins[k, c] = m[c, 3]
                        directions[k, c] = (m[c, 0] * dx + m[c, 1] * dy - m[c, 2]) * scale
                    k += 1


def surface_colors(scene: SceneMesh, face: NDArray, u: NDArray, v: NDArray) -> NDArray[np.float32]:
    """Return the unlit colour of every ray's hit, R 3 (anything where it missed)."""
    table = np.array(
        [[*p.color, *p.second, PATTERNS.index(p.pattern), p.frequency, *_unit(p.direction)] for p in scene.paints],
        np.float32,
    )
    rgb = np.zeros((len(face), 3), np.float32)
    _paint(rgb, face, u, v, scene.faces, scene.paint_of_face, table, scene.pattern_coords, scene.vertex_colors)
    if scene.uv is not None and scene.texture_of_face is not None:
        hit = np.flatnonzero(face >= 0)
        index = scene.texture_of_face[face[hit]]
        for i, texture in enumerate(scene.textures):
            of = hit[index == i]
            corners = scene.uv[scene.faces[face[of]]]
            w = np.stack([1 - u[of] - v[of], u[of], v[of]], -1)
            rgb[of] *= bilinear(texture.image, (corners * w[..., None]).sum(1))
    return rgb


def _unit(direction: tuple[float, float, float]) -> NDArray:
    return np.asarray(direction) / max(float(np.linalg.norm(direction)), 1e-12)


def bilinear(image: NDArray[np.uint8], uv: NDArray) -> NDArray[np.float32]:
    """Return the colours of a repeating image (H W 3, row 0 on top) at uv (N 2, v upwards), N 3 in [0, 1]."""
    height, width = image.shape[:2]
    x, y = uv[:, 0] % 1.0 * width - 0.5, (1 - uv[:, 1]) % 1.0 * height - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    x1, y1 = (x0 + 1) % width, (y0 + 1) % height
    x0, y0 = x0 % width, y0 % height
    upper = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    lower = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    return ((upper * (1 - fy) + lower * fy) / 255).astype(np.float32)


@numba.njit(cache=True)
def _lattice(i, j, k):
    """Return a fixed pseudo-random number in [0, 1) of a lattice point."""
    h = (i * 374761393 + j * 668265263 + k * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65536.0


@numba.njit(cache=True)
def _value_noise(x, y, z):
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    fx, fy, fz = x - i, y - j, z - k
    fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
    total = 0.0
    for a in range(2):
        for b in range(2):
            for c in range(2):
                w = (fx if a else 1 - fx) * (fy if b else 1 - fy) * (fz if c else 1 - fz)
                total += w * _lattice(i + a, j + b, k + c)
    return total


@numba.njit(cache=True)
def _pattern(kind, x, y, z, along):
    """Return the share of the second colour; coordinates are in periods."""
    if kind == 1:
        return 1.0 if along - np.floor(along) < 0.5 else 0.0
    if kind == 2:
        cell = np.floor(x + 1e-4) + np.floor(y + 1e-4) + np.floor(z + 1e-4)
        return cell - 2.0 * np.floor(0.5 * cell)
    if kind == 3:
        dx, dy, dz = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5, z - np.floor(z) - 0.5
        return 1.0 if dx * dx + dy * dy + dz * dz < 0.12 else 0.0
    if kind == 4:
        return min(max(0.5 + along, 0.0), 1.0)
    if kind == 5:
        return _value_noise(x, y, z) * 0.65 + 0.35 * _value_noise(2.7 * x, 2.7 * y, 2.7 * z)
    return 0.0


@numba.njit(cache=True)
def _paint(rgb, face, u, v, faces, paint_of_face, table, coords, colors):
    for r in range(len(face)):
        f = face[r]
        if f < 0:
            continue
        t = table[paint_of_face[f]]
        a, b, c = faces[f]
        wb, wc = u[r], v[r]
        wa = 1 - wb - wc
        share = 0.0
        if t[6] > 0:
            x = wa * coords[a, 0] + wb * coords[b, 0] + wc * coords[c, 0]
            y = wa * coords[a, 1] + wb * coords[b, 1] + wc * coords[c, 1]
            z = wa * coords[a, 2] + wb * coords[b, 2] + wc * coords[c, 2]
            along = (x * t[8] + y * t[9] + z * t[10]) * t[7]
            share = _pattern(int(t[6]), x * t[7], y * t[7], z * t[7], along)
        for i in range(3):
            tint = wa * colors[a, i] + wb * colors[b, i] + wc * colors[c, i]
            rgb[r, i] = (t[i] * (1 - share) + t[3 + i] * share) * tint


@numba.njit(cache=True)
def _shade(sums, rects, s, directions, face, u, v, distance, vertices, faces, normals, rgb, light):
    k = 0
    n = np.zeros(3, np.float32)
    for view in range(len(rects)):
        for y in range(rects[view, 0], rects[view, 1]):
            for x in range(rects[view, 2], rects[view, 3]):
                out = sums[view, y, x]
                for r in range(k, k + s * s):
                    f = face[r]
                    if f < 0:
                        continue
                    a, b, c = faces[f]
                    wa = 1 - u[r] - v[r]
                    length, towards = 0.0, 0.0
                    for i in range(3):
                        n[i] = wa * normals[a, i] + u[r] * normals[b, i] + v[r] * normals[c, i]
                        length += n[i] * n[i]
                    # The true face decides which side is visible: smooth normals may lean past the silhouette.
                    for i in range(3):
                        j, l = (i + 1) % 3, (i + 2) % 3
                        g = (vertices[b, j] - vertices[a, j]) * (vertices[c, l] - vertices[a, l])
                        g -= (vertices[b, l] - vertices[a, l]) * (vertices[c, j] - vertices[a, j])
                        towards += g * directions[r, i]
                    scale = (1.0 if towards <= 0 else -1.0) / max(np.sqrt(length), 1e-12)
                    facing = 0.0
                    for i in range(3):
                        n[i] *= scale
                        facing += n[i] * light[i]
                    brightness = light[3] + light[4] * n[2] + light[5] * max(facing, 0.0)
                    for i in range(3):
                        out[i] += rgb[r, i] * brightness
                    out[3] += 1
                    if len(out) > 4:
                        out[4] += distance[r]
                        for i in range(3):
                            out[5 + i] += n[i]
                k += s * s
