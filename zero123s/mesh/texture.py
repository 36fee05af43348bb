"""Bakes textures: the surface point of each texel, its colour from a field or a photo, and gap filling at seams."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from zero123s.ops.rasterization.software import Fragments, rasterize

POINTS_AT_ONCE = 2**17
"""Texels that are coloured together: a texture of 1024 all at once takes 270 MB of float64 arrays."""


def texel_fragments(
    uvs: Float[np.ndarray, "V 2"], faces: Int[np.ndarray, "F 3"], size: int, rows: slice = slice(None)
) -> Fragments:
    """Rasterise a mesh's texture layout: the face and barycentric coordinates under each texel centre.

    Args:
        uvs: V 2 in [0, 1], origin at the lower left.
        faces: F 3.
        size: edge of the texture in texels.
        rows: of the texture, the topmost is 0; all by default.

    Returns:
        Fragments of R x size texels, the rows from top to bottom.
    """
    first, end, _ = rows.indices(size)
    xyz = np.stack([uvs[:, 0] * size, (1 - uvs[:, 1]) * size - first, np.ones(len(uvs))], -1)
    return rasterize(xyz, faces, end - first, size)


def fill_gaps(image: Float[np.ndarray, "H W C"], known: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W C"]:
    """Give every unknown texel the value of the nearest known one.

    Args:
        image: H W C.
        known: H W; if it is False everywhere, the image is returned unchanged.

    Returns:
        H W C.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.texture import fill_gaps
        >>> fill_gaps(np.array([[[3.0], [0], [0]]]), np.array([[True, False, False]])).ravel().tolist()
        [3.0, 3.0, 3.0]
    """
    from scipy.ndimage import distance_transform_edt

    if known.all() or not known.any():
        return image
    rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)  # type: ignore[misc]
    return image[rows, columns]


@dataclass(frozen=True)
class SurfacePoints:
    """Points on the surface of a mesh, in the order of their texels."""

    points: Float[np.ndarray, "N 3"]
    normals: Float[np.ndarray, "N 3"]
    """Unit length."""
    fragments: Fragments
    faces: Int[np.ndarray, "F 3"]

    def interpolate(self, values: Float[np.ndarray, "V C"]) -> Float[np.ndarray, "N C"]:
        """Interpolate per-vertex values.

        Args:
            values: V C.

        Returns:
            N C, at the points.
        """
        return self.fragments.interpolate(values, self.faces)


def bake(
    vertices: Float[np.ndarray, "V 3"],
    normals: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    uvs: Float[np.ndarray, "V 2"],
    size: int,
    color: Callable[[SurfacePoints], np.ndarray],
    supersample: int = 2,
) -> Float[np.ndarray, "T T 3"]:
    """Bake a texture; texels outside the charts repeat their nearest neighbour, so that filtering shows no seam.

    Args:
        vertices: V 3.
        normals: V 3.
        faces: F 3.
        uvs: V 2 in [0, 1], origin at the lower left.
        size: edge T in texels.
        color: of N surface points -> N 3 in [0, 1]; called for one band of rows after the other.
        supersample: points per texel and axis, averaged.

    Returns:
        T T 3 in [0, 1], row 0 on top.
    """
    s = supersample
    total = np.zeros((size * s, size * s, 4), np.float32)
    n_rows = max(1, POINTS_AT_ONCE // (size * s))
    for first in range(0, size * s, n_rows):
        rows = slice(first, first + n_rows)
        fragments = texel_fragments(uvs, faces, size * s, rows)
        if not fragments.hit.any():
            continue
        points = fragments.interpolate(vertices, faces)
        normal = fragments.interpolate(normals, faces)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        total[rows][fragments.hit, :3] = color(SurfacePoints(points, normal, fragments, faces))
        total[rows][fragments.hit, 3] = 1
    total = total.reshape(size, s, size, s, 4).mean((1, 3))
    known = total[..., 3] > 0
    total[..., :3] /= np.maximum(total[..., 3:], 1e-9)
    return fill_gaps(total[..., :3], known).clip(0, 1)
