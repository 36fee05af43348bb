"""Projects photos onto a surface: which points a photo shows, how reliably, and a seamless blend with the rest."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from zero123s.mesh.surface_graph import SurfaceGraph
from zero123s.ops.cameras import project
from zero123s.ops.rasterization.software import sample_image, view_fragments
from zero123s.structures import Cameras, Mesh, ReferenceView


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Return 0 below `low`, 1 above `high`, and 3 t^2 - 2 t^3 between them.

    Args:
        low: where the rise begins.
        high: where it ends.
        x: any shape.

    Returns:
        The shape of `x`, in [0, 1].
    """
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


class PreparedPhoto(NamedTuple):
    """A photo, its camera and what it shows of the mesh."""

    camera: Cameras
    rgb: Float[np.ndarray, "H W 3"]
    mask: Float[np.ndarray, "H W"]
    depth: Float[np.ndarray, "H W"]
    """Of the mesh along the optical axis; 1e6 next to it."""
    certain: Float[np.ndarray, "H W"]
    """In [0, 1]; falls towards silhouettes and depth steps."""

    def project(
        self, points: Float[np.ndarray, "N 3"], normals: Float[np.ndarray, "N 3"]
    ) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
        """Project points into the photo.

        Args:
            points: N 3.
            normals: N 3, unit length.

        Returns:
            N 2, pixel positions (0 outside the photo); N, how far the points lie behind the mesh's first surface along
            the optical axis (infinite outside); and N, cosines of the normals to the directions to the camera.
        """
        x, y, z = project(torch.from_numpy(np.asarray(points, np.float32)), self.camera)[0].numpy().T
        to_camera = self.camera.positions[0].numpy() - points
        to_camera /= np.maximum(np.linalg.norm(to_camera, axis=1, keepdims=True), 1e-9)
        inside = (x >= 0) & (x < self.camera.width) & (y >= 0) & (y < self.camera.height) & (z > 0)
        xy = np.where(inside[:, None], np.stack([x, y], -1), 0)
        column, row = xy.astype(int).T
        return xy, np.where(inside, z - self.depth[row, column], np.inf), (normals * to_camera).sum(1)


@dataclass
class Photos:
    """Reference views prepared for projection onto one mesh.

    Args:
        mesh: hides what lies behind it.
        reference: the photos; at most `max_views` of them, evenly chosen.
    """

    mesh: Mesh
    reference: ReferenceView
    max_views: int = 8

    def __post_init__(self) -> None:
        from scipy.ndimage import distance_transform_edt

        self.reference = self.reference.to("cpu")
        n = len(self.reference.cameras)
        self.views = np.unique(np.linspace(0, n, min(n, self.max_views), endpoint=False).astype(int)).tolist()
        self.tolerance = 0.01 * float(np.ptp(self.mesh.vertices, axis=0).max())
        self.prepared: list[PreparedPhoto] = []
        for i in self.views:
            camera = self.reference.cameras.select(slice(i, i + 1))
            mask = self.reference.mask[i, :, :, 0].numpy() > 0.5
            fragments = view_fragments(self.mesh, camera)
            depth = np.where(fragments.hit, fragments.depth, 1e6)
            steps = np.zeros_like(mask)
            for axis in range(2):
                first = [slice(None)] * 2
                second = [slice(None)] * 2
                first[axis], second[axis] = slice(None, -1), slice(1, None)
                jump = np.abs(np.diff(depth, axis=axis)) > 5 * self.tolerance
                # Where the mesh ends there is nothing behind it that could be given its colours.
                jump &= fragments.hit[tuple(first)] & fragments.hit[tuple(second)]
                steps[tuple(first)] |= jump
                steps[tuple(second)] |= jump
            # In pixels. The mesh's own depth steps may be displaced from the photo's; the photo's silhouette is what it is.
            to_edge, to_step = (
                np.asarray(distance_transform_edt(np.pad(free, 1, constant_values=outside)))[1:-1, 1:-1]
                for free, outside in ((mask, False), (~steps, True))
            )
            certain = smoothstep(1.0, 3.0, to_edge) * smoothstep(0.003, 0.02, to_step / camera.height)
            rgb = self.reference.rgb[i].numpy()
            self.prepared.append(PreparedPhoto(camera, rgb, mask.astype(np.float32), depth, certain))

    def sample(
        self, points: Float[np.ndarray, "N 3"], normals: Float[np.ndarray, "N 3"]
    ) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N"]]:
        """Sample the photos' colours at surface points.

        Args:
            points: N 3, on the surface of the mesh.
            normals: N 3, unit length.

        Returns:
            N 3, colours in [0, 1], and N, their reliability in [0, 1], which falls at grazing angles and towards
            silhouettes and is zero where the mesh hides the point.
        """
        total = np.zeros((len(points), 3))
        weights = np.zeros(len(points))
        trust = np.zeros(len(points))
        for photo in self.prepared:
            xy, behind, facing = photo.project(points, normals)
            visible = behind < self.tolerance
            xy = xy[visible]
            w = smoothstep(0.15, 0.5, facing[visible]) * sample_image(photo.certain[..., None], xy)[:, 0]
            # A high power lets the best view win where several see a point.
            total[visible] += w[:, None] ** 4 * sample_image(photo.rgb, xy)
            weights[visible] += w**4
            trust[visible] = np.maximum(trust[visible], w)
        return total / np.maximum(weights, 1e-12)[:, None], trust


def exposure_match(
    source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"], weights: Float[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Fit gain and offset per channel that bring one set of colours closest to another, by weighted least squares.

    Args:
        source: N 3.
        target: N 3.
        weights: N, >= 0.

    Returns:
        3, gain within [0.7, 1.4], and 3, offset: target = gain * source + offset.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.photo import exposure_match
        >>> source = np.linspace(0, 1, 12).reshape(4, 3)
        >>> gain, offset = exposure_match(source, 0.8 * source + 0.1, np.ones(4))
        >>> gain.round(3).tolist(), offset.round(3).tolist()
        ([0.8, 0.8, 0.8], [0.1, 0.1, 0.1])
    """
    w = weights[:, None] / max(float(weights.sum()), 1e-12)
    mean_s, mean_t = (w * source).sum(0), (w * target).sum(0)
    variance = (w * (source - mean_s) ** 2).sum(0)
    gain = (w * (source - mean_s) * (target - mean_t)).sum(0) / np.maximum(variance, 1e-12)
    gain = np.where(variance > 1e-5, gain.clip(0.7, 1.4), 1.0)
    return gain, mean_t - gain * mean_s


def screened_poisson_fill(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    values: Float[np.ndarray, "V C"],
    trust: Float[np.ndarray, "V"],
    reach: float,
) -> Float[np.ndarray, "V C"]:
    """Extend per-vertex values from reliable vertices over the rest of the surface, fading out.

    Solves the screened Poisson equation on the mesh's graph, (trust + L) x = trust * values, with the screening chosen
    so that the values fall to 1/e after the distance `reach`. Vertices at one position count as one.

    Args:
        vertices: V 3.
        faces: F 3.
        values: V C.
        trust: V in [0, 1], reliability of the values.
        reach: in the unit of the vertices.

    Returns:
        V C.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import cg

    graph = SurfaceGraph(vertices, faces)
    index, degree = graph.vertex_of_node, graph.degree
    screening = degree * (graph.mean_length / reach) ** 2 / 2 + 1e-9
    pull = 10.0 * degree * trust[index] ** 2
    system = diags(degree + screening + pull) - graph.adjacency
    scale = diags(1 / system.diagonal())
    columns = [cg(system, pull * values[index, c], rtol=1e-4, maxiter=2000, M=scale)[0] for c in range(values.shape[1])]
    return np.stack(columns, -1)[graph.node_of_vertex]
