"""Rasterization of triangle meshes: visibility, and images whose silhouettes move with the vertices.

Visibility has a backend per device and no gradients; what follows from it, barycentric coordinates, depth and
antialiasing, is plain torch on every device and differentiable in the vertices.
Screen coordinates are (u, v, depth): pixels, centres at +0.5, row 0 on top; depth along the viewing axis.

Example:
    >>> import torch
    >>> from zero123s.ops.cameras import generate_rays, orbit_cameras
    >>> from zero123s.ops.rasterization import fragments_of, pinhole, to_screen, visible_faces
    >>> rays = generate_rays(orbit_cameras(0.0, 0.0, distance=2.0, fovy_deg=60.0, height=8, width=8))
    >>> vertices = torch.tensor([[0.0, -9, -9], [0.0, 9, -9], [0.0, 0, 9]])  # one face in the plane x = 0
    >>> faces = torch.tensor([[0, 1, 2]])
    >>> screen = to_screen(vertices, *pinhole(rays))
    >>> fragments = fragments_of(visible_faces(screen, faces, 8, 8), screen, faces)
    >>> points = fragments.interpolate(vertices, faces)
    >>> len(fragments.pixel), round(points[:, 0].abs().max().item(), 4), round(fragments.depth.mean().item(), 4)
    (64, 0.0, 2.0)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.ops import backends
from zero123s.ops.rasterization import reference
from zero123s.ops.rasterization.antialias import MeshEdges, Silhouettes, find_silhouettes, mesh_edges, neighbours
from zero123s.ops.rasterization.screen import pinhole, to_screen

__all__ = [
    "Fragments",
    "MeshEdges",
    "Silhouettes",
    "find_silhouettes",
    "fragments_of",
    "mesh_edges",
    "neighbours",
    "pinhole",
    "to_screen",
    "visible_faces",
]


@torch.no_grad()
def visible_faces(
    screen: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], height: int, width: int, backend: str = "auto"
) -> Int[Tensor, "B H W"]:
    """Return the nearest face at every pixel centre.

    Both sides of a face are visible; a face with a corner at or behind the camera is left out.

    Args:
        screen: B V 3, vertices in screen coordinates, as `to_screen` returns them.
        faces: F 3, vertex numbers.
        height: of the images, in pixels.
        width: of the images, in pixels.
        backend: "auto", "reference", "numba" (CPU), "triton" or "nvdiffrast" (CUDA).

    Returns:
        B H W, face numbers, -1 for none; without gradients.

    Raises:
        ConfigError: an unknown backend.
        MissingDependencyError: a named backend cannot run here.

    Example:
        >>> import torch
        >>> from zero123s.ops.rasterization import visible_faces
        >>> screen = torch.tensor([[[0.0, 0, 1], [2.0, 0, 1], [0.0, 2, 1]]])  # one view, depth 1
        >>> visible_faces(screen, torch.tensor([[0, 1, 2]]), 2, 2).tolist()
        [[[0, 0], [0, -1]]]
    """
    screen = screen.detach()
    chosen = backends.resolve("rasterization", backend, screen.device)
    if chosen == "triton":
        from zero123s.ops.rasterization.triton import visible_faces as one_view
    elif chosen == "nvdiffrast":
        from zero123s.ops.rasterization.nvdiffrast import visible_faces as one_view
    elif chosen == "numba":
        from zero123s.ops.rasterization.numba import visible_faces as one_view
    else:
        one_view = reference.visible_faces
    views = [one_view(view, faces, height, width) for view in screen]
    return torch.stack(views) if views else faces.new_zeros(0, height, width)


@dataclass(frozen=True)
class Fragments:
    """The K pixels of all views at which a face is visible."""

    pixel: Int[Tensor, "K"]
    """Number of the pixel: (view H + row) W + column."""
    face: Int[Tensor, "K"]
    bary: Float[Tensor, "K 3"]
    """Barycentric coordinates of the visible point in the world (not on the screen)."""
    depth: Float[Tensor, "K"]
    """Along the viewing axis."""

    def interpolate(self, values: Float[Tensor, "V C"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "K C"]:
        """Interpolate per-vertex values at the visible points.

        Args:
            values: V C, one row per vertex.
            faces: F 3, vertex numbers.

        Returns:
            K C, differentiable in `values` and, through the barycentric coordinates, in the vertices.
        """
        return (values[faces[self.face]] * self.bary[..., None]).sum(1)


def fragments_of(face_id: Int[Tensor, "B H W"], screen: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"]) -> Fragments:
    """Return barycentric coordinates and depth of the visible points; differentiable in `screen`.

    Args:
        face_id: B H W, as `visible_faces` returns it.
        screen: B V 3, vertices in screen coordinates.
        faces: F 3, vertex numbers.

    Returns:
        The pixels with a face, in the order of `face_id`.
    """
    height, width = face_id.shape[1:]
    pixel = (face_id.reshape(-1) >= 0).nonzero()[:, 0]
    face = face_id.reshape(-1)[pixel]
    u, v = pixel % width + 0.5, pixel // width % height + 0.5
    corners = screen[(pixel // (height * width))[:, None], faces[face]]
    (au, av, az), (bu, bv, bz), (cu, cv, cz) = (c.unbind(-1) for c in corners.unbind(1))
    on_screen = torch.stack(
        [
            (bu - u) * (cv - v) - (cu - u) * (bv - v),
            (cu - u) * (av - v) - (au - u) * (cv - v),
            (au - u) * (bv - v) - (bu - u) * (av - v),
        ],
        dim=-1,
    )
    # 1/depth is linear on the screen. The area cancels out.
    weighted = on_screen / torch.stack([az, bz, cz], dim=-1)
    total = weighted.sum(-1)
    return Fragments(pixel, face, weighted / total[:, None], on_screen.sum(-1) / total)
