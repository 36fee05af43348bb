"""The signed distance to a closed mesh at any points."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from zero123s.mesh.metrics import sample_corners, voxelize
from zero123s.mesh.processing import vertex_normals


class SignedDistance:
    """Distance to a closed mesh, negative inside.

    Near the surface it is the distance to the plane through the nearest of many surface points, which is exact to
    second order in their spacing; further away the distance to that point, with the sign of the voxel.

    Args:
        vertices: V 3, of a closed mesh with outward faces.
        faces: F 3, counter-clockwise seen from outside.
        n_samples: points on the surface.
        resolution: voxels per edge of the grid that separates inside from outside.
    """

    def __init__(
        self,
        vertices: Float[np.ndarray, "V 3"],
        faces: Int[np.ndarray, "F 3"],
        n_samples: int = 200_000,
        resolution: int = 128,
    ) -> None:
        from scipy.spatial import cKDTree

        rng = np.random.default_rng(0)
        corners, weights = sample_corners(vertices, faces, n_samples, rng)
        self.surface = np.einsum("nc,ncd->nd", weights, vertices[corners])
        normals = np.einsum("nc,ncd->nd", weights, vertex_normals(vertices, faces)[corners])
        self.normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        self._tree: Any = cKDTree(self.surface)
        used = vertices[np.unique(faces)]
        size = float(np.ptp(used, axis=0).max()) * 1.05
        self._lower = (used.max(0) + used.min(0)) / 2 - size / 2
        self._cell = size / resolution
        self._inside = voxelize(vertices, faces, self._lower, size, resolution)

    def __call__(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N"]:
        """Return the signed distance at points.

        Args:
            points: N 3.

        Returns:
            N, in the unit of the vertices, negative inside.
        """
        distance, nearest = self._tree.query(points)
        along = ((points - self.surface[nearest]) * self.normals[nearest]).sum(-1)
        index = np.floor((points - self._lower) / self._cell).astype(int)
        within = ((index >= 0) & (index < len(self._inside))).all(1)
        inside = np.zeros(len(points), bool)
        inside[within] = self._inside[tuple(index[within].T)]
        far = np.where(inside, -distance, distance)
        return np.where(distance < 1.5 * self._cell, along, far)
