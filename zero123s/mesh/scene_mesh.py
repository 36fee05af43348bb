"""The coloured triangle mesh that is rendered, whether generated or read from a file."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from zero123s.errors import MeshError

FRUSTUM_RADIUS = 3.8 * np.sin(np.deg2rad(10.0))
"""Radius of the sphere that just touches the frame at distance 3.8 and fovy 20 degrees."""

PATTERNS = ("plain", "stripes", "checks", "dots", "gradient", "noise")


@dataclass(frozen=True)
class Paint:
    """The colour of one part: uniform, or a solid pattern of two colours in the part's own coordinates."""

    color: tuple[float, float, float]
    """sRGB in [0, 1]."""
    second: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pattern: str = "plain"
    frequency: float = 4.0
    """Periods per unit length."""
    direction: tuple[float, float, float] = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Texture:
    """An image sampled at the hits."""

    image: NDArray[np.uint8]
    """H W 3, row 0 on top."""


@dataclass(frozen=True)
class SceneMesh:
    """A triangle mesh with per-vertex normals and per-face colours; z up, the front faces +x."""

    vertices: NDArray[np.float32]
    """V 3."""
    faces: NDArray[np.int32]
    """F 3, counter-clockwise seen from outside."""
    normals: NDArray[np.float32]
    """V 3, unit length."""
    paint_of_face: NDArray[np.int32]
    """F, index into `paints`."""
    paints: tuple[Paint, ...]
    pattern_coords: NDArray[np.float32]
    """V 3, where the patterns of `paints` are evaluated."""
    vertex_colors: NDArray[np.float32]
    """V 3 factors on the paint's colour, sRGB in [0, 1]."""
    name: str = ""
    uv: NDArray[np.float32] | None = None
    """V 2, v upwards."""
    texture_of_face: NDArray[np.int32] | None = None
    """F, index into `textures`; -1 = none."""
    textures: tuple[Texture, ...] = field(default=())


def vertex_normals(vertices: NDArray, faces: NDArray) -> NDArray[np.float32]:
    """Compute area-weighted vertex normals.

    Args:
        vertices: V 3.
        faces: F 3.

    Returns:
        V 3, unit length; a vertex of no face gets +z.
    """
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(weighted[:, i], 3), len(vertices)) for i in range(3)], axis=-1
    )
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    return np.where(length > 1e-20, total / np.maximum(length, 1e-20), [0.0, 0.0, 1.0]).astype(np.float32)


def normalize(scene: SceneMesh, fill: float = 0.87) -> SceneMesh:
    """Centre a scene at the origin and scale its bounding sphere.

    Args:
        scene: the mesh.
        fill: in (0, 1], radius of its bounding sphere relative to that of the sphere that touches the frame at distance
            3.8 and fovy 20 degrees, so that no view from there cuts the object.

    Returns:
        The scaled scene.

    Raises:
        MeshError: the mesh has no faces or no finite extent.
    """
    in_use = np.zeros(len(scene.vertices), bool)
    in_use[scene.faces] = True
    used = scene.vertices[in_use]
    if len(used) == 0:
        raise MeshError(f"mesh '{scene.name}' has no faces; there is nothing to render.")
    center = 0.5 * (used.min(axis=0) + used.max(axis=0))
    radius = float(np.linalg.norm(used - center, axis=-1).max())
    if not np.isfinite(radius) or radius < 1e-12:
        raise MeshError(f"mesh '{scene.name}' has no finite extent (radius {radius}); check its vertices.")
    vertices = (scene.vertices - center) * np.float32(fill * FRUSTUM_RADIUS / radius)
    return replace(scene, vertices=vertices.astype(np.float32))
