"""Triangle meshes to pixels: who is seen where, and pictures whose silhouettes move with the vertices.

Visibility has a backend per device and no gradients; what follows from it, barycentric coordinates, depth and
antialiasing, is plain torch on every device and differentiable in the vertices.
Screen coordinates are (u, v, depth): pixels, centres at +0.5, row 0 on top; depth along the viewing axis.
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
    """Return the nearest face whose inside or edge each pixel centre meets, -1 for none.

    Both sides of a face are seen; a face with a corner at or behind the camera is left out.
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
    """The K pixels of all views that see a face."""

    pixel: Int[Tensor, "K"]
    """Number of the pixel: (view H + row) W + column."""
    face: Int[Tensor, "K"]
    bary: Float[Tensor, "K 3"]
    """Shares of the face's corners in the point that is seen, in the world (not on the screen)."""
    depth: Float[Tensor, "K"]
    """Along the viewing axis."""

    def interpolate(self, values: Float[Tensor, "V C"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "K C"]:
        """Return per-vertex values at the points that are seen."""
        return (values[faces[self.face]] * self.bary[..., None]).sum(1)


def fragments_of(face_id: Int[Tensor, "B H W"], screen: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"]) -> Fragments:
    """Return where each pixel meets the face that it sees; differentiable in `screen`."""
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
