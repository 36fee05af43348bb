"""The zero level of a signed distance on a grid, as a triangle mesh through which gradients flow (Doi and Koide 1991).

A grid of resolution R has R cells and R + 1 nodes along each axis; node (i, j, k) has the number (i (R+1) + j) (R+1) + k.
Every cell is split into the six tetrahedra of Kuhn: neighbours cut their common face along the same diagonal, so the
surface has no gaps.
"""

import functools
from itertools import combinations, permutations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

EDGES = tuple(combinations(range(4), 2))
"""The six edges of a tetrahedron, as pairs of its corners."""


@functools.cache
def _kuhn_corners() -> np.ndarray:
    """Return the corners of six tetrahedra of a unit cell, 6 4 3, all of positive volume."""
    found = []
    for order in permutations(range(3)):
        corners = np.zeros((4, 3), np.int64)
        for step, axis in enumerate(order):
            corners[step + 1 :, axis] = 1
        if np.linalg.det(corners[1:] - corners[0]) < 0:
            corners[[1, 2]] = corners[[2, 1]]
        found.append(corners)
    return np.stack(found)


@functools.cache
def _triangles() -> np.ndarray:
    """Return which edges of a tetrahedron the corners of up to two triangles lie on, 16 2 3, with -1 for no triangle.

    The case is the sum of 2^c over the corners c that are inside. Triangles turn counter-clockwise seen from outside,
    in tetrahedra of positive volume.
    """
    place = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    number = {pair: i for i, pair in enumerate(EDGES)}
    table = np.full((16, 2, 3), -1)
    for case in range(1, 15):
        inner = [c for c in range(4) if case >> c & 1]
        outer = [c for c in range(4) if not case >> c & 1]
        crossed = [[number[min(i, o), max(i, o)] for o in outer] for i in inner]
        if len(inner) == 2:
            (ac, ad), (bc, bd) = crossed  # around the quadrilateral: ac, ad, bd, bc
            polygons = [[ac, ad, bd], [ac, bd, bc]]
        else:
            polygons = [[edge for row in crossed for edge in row]]
        outwards = place[outer].mean(0) - place[inner].mean(0)
        for i, polygon in enumerate(polygons):
            a, b, c = (place[list(EDGES[edge])].mean(0) for edge in polygon)
            turn = np.cross(b - a, c - a) @ outwards
            table[case, i] = polygon if turn > 0 else polygon[::-1]
    return table


def cell_tetrahedra(cells: Int[Tensor, "C 3"], resolution: int) -> Int[Tensor, "T 4"]:
    """Return the six tetrahedra of each cell of a grid.

    Args:
        cells: C 3, each cell's lowest node (i, j, k).
        resolution: cells per axis of the grid.

    Returns:
        6C 4, node numbers (i (R+1) + j) (R+1) + k; every tetrahedron has positive volume.

    Example:
        >>> import torch
        >>> from zero123s.ops.marching_tetrahedra import cell_tetrahedra
        >>> tetrahedra = cell_tetrahedra(torch.tensor([[0, 0, 0]]), resolution=1)
        >>> tetrahedra.shape, (tetrahedra == 0).any(1).all().item(), (tetrahedra == 7).any(1).all().item()
        (torch.Size([6, 4]), True, True)
    """
    corners = torch.from_numpy(_kuhn_corners()).to(cells.device)
    nodes = cells[:, None, None] + corners
    n = resolution + 1
    return ((nodes[..., 0] * n + nodes[..., 1]) * n + nodes[..., 2]).reshape(-1, 4)


def marching_tetrahedra(
    positions: Float[Tensor, "N 3"], sdf: Float[Tensor, "N"], tetrahedra: Int[Tensor, "T 4"]
) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    """Return the surface on which a signed distance, linear on each tetrahedron, is zero.

    Faces turn counter-clockwise seen from outside, where `sdf` >= 0. The mesh is closed wherever the tetrahedra around
    the surface are all given. Differentiable in `positions` and `sdf`.

    Args:
        positions: N 3, world positions of the nodes.
        sdf: N, signed distance at the nodes, negative inside.
        tetrahedra: T 4, node numbers, of positive volume; see `cell_tetrahedra`.

    Returns:
        V 3 vertices and F 3 faces.

    Example:
        >>> import torch
        >>> from zero123s.ops.marching_tetrahedra import cell_tetrahedra, marching_tetrahedra
        >>> nodes = torch.cartesian_prod(*[torch.linspace(-1, 1, 9)] * 3)
        >>> cells = torch.cartesian_prod(*[torch.arange(8)] * 3)
        >>> sdf = nodes.norm(dim=-1) - 0.7
        >>> vertices, faces = marching_tetrahedra(nodes, sdf, cell_tetrahedra(cells, 8))
        >>> edges = 3 * len(faces) // 2
        >>> len(vertices) - edges + len(faces)  # Euler characteristic of a closed sphere
        2
    """
    inside = sdf.detach() < 0
    case = (inside[tetrahedra] * torch.tensor([1, 2, 4, 8], device=sdf.device)).sum(-1)
    cut = (case > 0) & (case < 15)
    tetrahedra, case = tetrahedra[cut], case[cut]
    ends = tetrahedra[:, torch.tensor(EDGES, device=sdf.device)].sort(-1).values  # T 6 2
    crossed = inside[ends[..., 0]] != inside[ends[..., 1]]
    # One vertex per crossed edge of the grid, shared by all the tetrahedra around it.
    keys, vertex = torch.unique(ends[..., 0][crossed] * len(sdf) + ends[..., 1][crossed], return_inverse=True)
    vertex_of_edge = torch.full(crossed.shape, -1, dtype=torch.long, device=sdf.device)
    vertex_of_edge[crossed] = vertex
    low, high = keys // max(len(sdf), 1), keys % max(len(sdf), 1)
    at = (sdf[low] / (sdf[low] - sdf[high]))[:, None]
    vertices = positions[low] + at * (positions[high] - positions[low])
    on_edges = torch.from_numpy(_triangles()).to(sdf.device)[case]  # T 2 3
    faces = vertex_of_edge[:, None].expand(-1, 2, -1).gather(2, on_edges.clamp_min(0))
    return vertices, faces[on_edges[..., 0] >= 0]
