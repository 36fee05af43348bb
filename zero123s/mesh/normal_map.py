"""Bakes the fine shape of a dense mesh into a normal map of a light one."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from zero123s.mesh.processing import vertex_normals
from zero123s.mesh.texture import SurfacePoints, bake

NEIGHBOURS = 4
"""Dense vertices that a texel's normal is averaged over."""


def vertex_tangents(
    vertices: Float[np.ndarray, "V 3"],
    normals: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    uvs: Float[np.ndarray, "V 2"],
) -> Float[np.ndarray, "V 4"]:
    """Compute unit tangents along which u grows, orthogonal to the normals, and the bitangent's sign.

    Args:
        vertices: V 3, split at seams.
        normals: V 3, unit length.
        faces: F 3.
        uvs: V 2, origin at the lower left, so that the bitangent points up in the image, as glTF expects.

    Returns:
        V 4, tangent and +1 or -1.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.normal_map import vertex_tangents
        >>> triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> up = np.array([[0.0, 0, 1]]).repeat(3, axis=0)
        >>> vertex_tangents(triangle, up, np.array([[0, 1, 2]]), triangle[:, :2])[0].tolist()
        [1.0, 0.0, 0.0, 1.0]
    """
    p, q = vertices[faces], uvs[faces]
    e1, e2, d1, d2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0], q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]
    determinant = d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1]
    sign = np.sign(determinant)[:, None]
    along_u = sign * (e1 * d2[:, 1:] - e2 * d1[:, 1:])
    along_v = sign * (e2 * d1[:, :1] - e1 * d2[:, :1])
    sums = []
    for direction in (along_u, along_v):
        total = np.zeros((len(vertices), 3))
        for corner in range(3):
            for axis in range(3):
                total[:, axis] += np.bincount(faces[:, corner], direction[:, axis], len(vertices))
        sums.append(total)
    tangent = sums[0] - normals * (normals * sums[0]).sum(1, keepdims=True)
    length = np.linalg.norm(tangent, axis=1, keepdims=True)
    # A vertex without texture area may point anywhere along the surface.
    anywhere = np.cross(normals, np.eye(3)[np.abs(normals).argmin(1)])
    anywhere /= np.maximum(np.linalg.norm(anywhere, axis=1, keepdims=True), 1e-12)
    tangent = np.where(length > 1e-12, tangent / np.maximum(length, 1e-12), anywhere)
    up = (np.cross(normals, tangent) * sums[1]).sum(1, keepdims=True)
    return np.concatenate([tangent, np.where(up < 0, -1.0, 1.0)], axis=1)


def bake_normal_map(
    vertices: Float[np.ndarray, "V 3"],
    normals: Float[np.ndarray, "V 3"],
    tangents: Float[np.ndarray, "V 4"],
    faces: Int[np.ndarray, "F 3"],
    uvs: Float[np.ndarray, "V 2"],
    dense: tuple[Float[np.ndarray, "W 3"], Int[np.ndarray, "G 3"]],
    size: int,
) -> Float[np.ndarray, "T T 3"]:
    """Bake a dense mesh's smooth normals into a tangent-space normal map of a simplified mesh.

    Args:
        vertices: V 3, of the simplified mesh, split at seams.
        normals: V 3, unit length.
        tangents: V 4, of `vertex_tangents`.
        faces: F 3.
        uvs: V 2 in [0, 1], origin at the lower left.
        dense: W 3 and G 3, vertices and faces of the dense mesh.
        size: edge T in texels.

    Returns:
        T T 3 in [0, 1], (n + 1) / 2 of the normal along tangent, bitangent and normal.
    """
    from scipy.spatial import cKDTree

    tree: Any = cKDTree(dense[0])
    dense_normals = vertex_normals(*dense)

    def tangent_space(surface: SurfacePoints) -> np.ndarray:
        distance, nearest = tree.query(surface.points, k=NEIGHBOURS)
        candidates = dense_normals[nearest]
        # A thin wall's other side is near as well, with opposite normals.
        same_side = (candidates * surface.normals[:, None]).sum(-1).clip(1e-6)
        weight = same_side / (distance + 1e-9)
        blended = (weight[..., None] * candidates).sum(1)
        blended /= np.maximum(np.linalg.norm(blended, axis=1, keepdims=True), 1e-12)
        basis = tangent_basis(surface.interpolate(tangents), surface.normals)
        return 0.5 + 0.5 * np.einsum("nij,nj->ni", basis, blended)

    return bake(vertices, normals, faces, uvs, size, tangent_space, 1)


def tangent_basis(tangents: Float[np.ndarray, "N 4"], normals: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3 3"]:
    """Return an orthonormal tangent frame from interpolated tangents, as viewers build it.

    Args:
        tangents: N 4, tangent (any length) and the bitangent's sign.
        normals: N 3, unit length.

    Returns:
        N 3 3, rows tangent, bitangent, normal.
    """
    t = tangents[:, :3] - normals * (tangents[:, :3] * normals).sum(1, keepdims=True)
    t = t / np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-12)
    sign = np.where(tangents[:, 3:] < 0, -1.0, 1.0)
    return np.stack([t, sign * np.cross(normals, t), normals], axis=1)
