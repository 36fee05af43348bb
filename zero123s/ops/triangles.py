"""Edges and vertex normals of a triangle mesh, differentiable in its vertices."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zero123s.ops.vectors import unit


def edges_of(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "E 2"]:
    """Return every edge once, its lower vertex first."""
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return torch.unique(ends.sort(dim=1).values, dim=0)


def vertex_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """Return unit normals, the mean of the faces around each vertex weighted by their areas."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    of_faces = torch.linalg.cross(b - a, c - a)
    summed = torch.zeros_like(vertices)
    for i in range(3):
        summed = summed.index_add(0, faces[:, i], of_faces)
    return unit(summed)
