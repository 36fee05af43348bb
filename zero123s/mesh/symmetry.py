"""Detail of the input photo on the sides that it does not show, through mirror planes and rotations of the object.

The colours of unseen sides come from the guidance: correct on average over large areas, noisy in detail. Points there are
mirrored at vertical planes and rotated about the vertical axis, on to surface that is visible in the photo. The detail at
that place, the photo minus its blurred version, is added to the smoothed colours of the unseen side, where

- the moved point lies on the visible surface and faces the camera,
- the smoothed colours of both places agree, and
- the photo has little detail there, or its detail correlates with that of the unseen side. Without this condition, faces
  would be copied to the backs of heads.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from zero123s.mesh.photo import Photos, PreparedPhoto, smoothstep
from zero123s.mesh.surface_graph import SurfaceGraph
from zero123s.ops.rasterization.software import sample_image
from zero123s.structures import Mesh

DETAIL, NOISE, WINDOW, BLEND = 0.05, 0.012, 0.07, 0.014
"""Standard deviations as fractions of the object's extent: of the blur that separates detail from colours, of the blur before
details are compared, of the window of correlations, and of the smoothing of weights."""
COLOR_ERROR = 0.08
"""Standard deviation of the Gaussian that weights differences of smoothed colours."""
REACH = 0.08
"""Largest distance from the visible surface, as a fraction of the object's extent."""
N_PLANES, N_TURNS = 12, 12
N_COMPARED, N_USED = 6, 3
"""Symmetries whose detail is compared, and the largest number that is used."""
LEAST_SHARE = 0.01
"""Smallest fraction of the unseen surface that each further symmetry must cover."""


class _Symmetry(NamedTuple):
    matrix: Float[np.ndarray, "3 3"]
    """Orthogonal; applied about the object's centre."""
    weights: Float[np.ndarray, "V"]


class SymmetricDetail:
    """The photo's detail on surface that the photo does not show.

    Args:
        mesh: with normals.
        colors: V 3, colours of the vertices without the photo.
        trust: V, in [0, 1], how reliable the photo's own colours are.
        photos: prepared for the mesh; the first is used.
    """

    def __init__(
        self, mesh: Mesh, colors: Float[np.ndarray, "V 3"], trust: Float[np.ndarray, "V"], photos: Photos
    ) -> None:
        assert mesh.normals is not None
        lower, upper = mesh.vertices.min(0), mesh.vertices.max(0)
        self.centre, self.extent = 0.5 * (lower + upper), float((upper - lower).max())
        self.photo = photos.prepared[0]
        self.smooth_photo = _blurred(self.photo, DETAIL * self.extent)
        graph = SurfaceGraph(mesh.vertices, mesh.faces)
        self.smooth_colors = graph.smooth(colors, DETAIL * self.extent)
        unseen = 1 - trust
        self.symmetries = self._choose(mesh, graph, colors, unseen)
        covered = 1 - np.prod([1 - s.weights for s in self.symmetries], axis=0) if self.symmetries else 0 * unseen
        self.share = float((covered * unseen).sum() / len(unseen))
        """Fraction of the vertices that receive detail."""

    def _choose(
        self, mesh: Mesh, graph: SurfaceGraph, colors: Float[np.ndarray, "V 3"], unseen: Float[np.ndarray, "V"]
    ) -> list[_Symmetry]:
        """Return the symmetries that give detail to most of the unseen surface, the best first."""
        assert mesh.normals is not None
        found = []
        for matrix in vertical_symmetries(float(self.photo.camera.azimuth_deg[0])):
            points, normals = self._moved(matrix, mesh.vertices, mesh.normals)
            xy, weights = self._visible(points, normals)
            error = np.linalg.norm(self.smooth_colors - sample_image(self.smooth_photo, xy), axis=1)
            weights = weights * np.exp(-0.5 * (error / COLOR_ERROR) ** 2)
            found.append((float((weights * unseen).sum()), matrix, xy, weights))
        found.sort(key=lambda entry: -entry[0])
        own = graph.smooth(colors, NOISE * self.extent) - self.smooth_colors
        compared = _blurred(self.photo, NOISE * self.extent) - self.smooth_photo
        candidates = []
        for _, matrix, xy, weights in found[:N_COMPARED]:
            accepted = _accepted(graph, own, sample_image(compared, xy), weights * unseen, WINDOW * self.extent)
            smooth = graph.smooth((weights * accepted)[:, None], BLEND * self.extent)[:, 0]
            candidates.append(_Symmetry(matrix, smooth.clip(0, 1)))
        chosen, left = [], unseen.copy()
        while candidates and len(chosen) < N_USED:
            best = max(range(len(candidates)), key=lambda i: float((candidates[i].weights * left).sum()))
            if (candidates[best].weights * left).sum() < LEAST_SHARE * unseen.sum():
                break
            chosen.append(candidates.pop(best))
            left = left * (1 - chosen[-1].weights)
        return chosen

    def _moved(
        self, matrix: np.ndarray, points: Float[np.ndarray, "N 3"], normals: Float[np.ndarray, "N 3"]
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
        return (points - self.centre) @ matrix.T + self.centre, normals @ matrix.T

    def _visible(
        self, points: Float[np.ndarray, "N 3"], normals: Float[np.ndarray, "N 3"]
    ) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N"]]:
        """Return pixel positions of points, and how well the photo shows surface there."""
        xy, behind, facing = self.photo.project(points, normals)
        reach = REACH * self.extent
        near = 1 - smoothstep(0.5 * reach, reach, np.abs(behind))
        return xy, near * smoothstep(0.15, 0.5, facing) * sample_image(self.photo.certain[..., None], xy)[:, 0]

    def __call__(
        self,
        colors: Float[np.ndarray, "N 3"],
        points: Float[np.ndarray, "N 3"],
        normals: Float[np.ndarray, "N 3"],
        interpolate: Callable[[np.ndarray], np.ndarray],
    ) -> Float[np.ndarray, "N 3"]:
        """Add the photo's detail to the colours of surface points.

        Args:
            colors: N 3, without the photo.
            points: N 3, on the surface.
            normals: N 3, unit length.
            interpolate: from values at the vertices, V C, to values at the points, N C.

        Returns:
            N 3, not clamped.
        """
        smooth, out, left = interpolate(self.smooth_colors), np.zeros_like(colors), np.ones(len(colors))
        for symmetry in self.symmetries:
            xy, visible = self._visible(*self._moved(symmetry.matrix, points, normals))
            weights = left * interpolate(symmetry.weights[:, None])[:, 0].clip(0, 1) * smoothstep(0.0, 0.2, visible)
            detail = sample_image(self.photo.rgb, xy) - sample_image(self.smooth_photo, xy)
            out += weights[:, None] * (smooth + detail)
            left = left - weights
        return out + left[:, None] * colors


def vertical_symmetries(azimuth_deg: float = 0.0) -> list[Float[np.ndarray, "3 3"]]:
    """Return the reflections at vertical planes and rotations about the vertical axis (z) that are compared.

    Args:
        azimuth_deg: of the camera; the first plane faces it.

    Returns:
        Orthogonal matrices, N_PLANES with determinant -1 and N_TURNS - 1 with determinant 1.

    Example:
        >>> from zero123s.mesh.symmetry import vertical_symmetries
        >>> vertical_symmetries()[0].round(6).diagonal().tolist()  # mirrored at the plane x = 0
        [-1.0, 1.0, 1.0]
    """
    directions = np.deg2rad(azimuth_deg) + np.pi * np.arange(N_PLANES) / N_PLANES
    across = [np.array([np.cos(a), np.sin(a), 0.0]) for a in directions]
    angles = 2 * np.pi * np.arange(1, N_TURNS) / N_TURNS
    turns = [np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) for a in angles]
    return [np.eye(3) - 2 * np.outer(m, m) for m in across] + turns


def _blurred(photo: PreparedPhoto, sigma: float) -> Float[np.ndarray, "H W 3"]:
    """Return the object's colours blurred by `sigma` world units at its distance, without the background's."""
    from scipy.ndimage import gaussian_filter

    distance = float(photo.depth[photo.depth < 1e6].mean()) if (photo.depth < 1e6).any() else 1.0
    pixels = sigma * photo.camera.height / (2 * distance * np.tan(np.deg2rad(float(photo.camera.fovy_deg[0])) / 2))
    total = gaussian_filter(photo.rgb * photo.mask[..., None], (pixels, pixels, 0))
    return total / np.maximum(gaussian_filter(photo.mask, pixels), 1e-6)[..., None]


def _accepted(
    graph: SurfaceGraph,
    own: Float[np.ndarray, "V 3"],
    offered: Float[np.ndarray, "V 3"],
    weights: Float[np.ndarray, "V"],
    window: float,
) -> Float[np.ndarray, "V"]:
    """Return weights in [0, 1]: 1 where the photo has little detail, or its detail correlates with the surface's own."""
    products = np.stack([(own * offered).sum(1), (own**2).sum(1), (offered**2).sum(1)], axis=1)
    both, first, second = graph.smooth(products, window, weights + 1e-6).T
    correlation = both / np.sqrt(np.maximum(first * second, 1e-12))
    return np.maximum(1 - smoothstep(0.03, 0.08, np.sqrt(second / 3)), smoothstep(0.15, 0.45, correlation))
