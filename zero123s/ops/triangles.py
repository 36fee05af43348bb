"""Edges and vertex normals of a triangle mesh, differentiable in its vertices."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.ops.vectors import unit


def edges_of(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "E 2"]:
    """Return every edge once.

    Args:
        faces: F 3, corners of the triangles.

    Returns:
        E 2, both vertices of each edge, the lower first, in ascending order.

    Example:
        >>> import torch
        >>> from zero123s.ops.triangles import edges_of
        >>> edges_of(torch.tensor([[0, 1, 2], [2, 1, 3]])).tolist()
        [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    """
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return torch.unique(ends.sort(dim=1).values, dim=0)


def vertex_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """Return the mean normal of the faces around each vertex, weighted by their areas; differentiable in `vertices`.

    Args:
        vertices: V 3, positions.
        faces: F 3, corners, counter-clockwise seen from outside.

    Returns:
        V 3, unit normals.

    Example:
        >>> import torch
        >>> from zero123s.ops.triangles import vertex_normals
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> vertex_normals(corners, torch.tensor([[0, 1, 2]]))[0].tolist()
        [0.0, 0.0, 1.0]
    """
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    of_faces = torch.linalg.cross(b - a, c - a)
    summed = torch.zeros_like(vertices)
    for i in range(3):
        summed = summed.index_add(0, faces[:, i], of_faces)
    return unit(summed)
