"""Visibility from outside: nodes of a grid that no view reaches are part of the solid."""

import math
from itertools import product

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float

from zero123s.ops.kernels import launch

MAX_NODES = 264
"""Nodes per edge at which light is sent through the grid by default; finer grids are pooled first."""


@numba.njit(cache=True, nogil=True)
def _sweep(part, n_parts, occupied, shifts, lit):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Propagate parallel light along the first axis, shifted per slice, and mark the nodes that it reaches.

    Light is interpolated between nodes, so that what falls through a hole one node wide is soon gone.
    """
    nx, ny, nz = occupied.shape
    one = np.float32(1.0)
    for i in range(part, len(shifts), n_parts):
        shift_y, shift_z = shifts[i]
        # Where a node's light comes from in the slice before, and the shares of the four nodes there.
        dy, dz = int(np.floor(-shift_y)), int(np.floor(-shift_z))
        ay, az = np.float32(-shift_y - dy), np.float32(-shift_z - dz)
        first, end = max(0, -dz), min(nz, nz - 1 - dz)
        before, light = np.ones((ny, nz), np.float32), np.ones((ny, nz), np.float32)
        for x in range(nx):
            for y in range(ny):
                for z in range(nz):
                    light[y, z] = one
                if x > 0 and 0 <= y + dy < ny - 1:
                    low, high = before[y + dy], before[y + dy + 1]
                    for z in range(first, end):
                        a = low[z + dz] * (one - az) + low[z + dz + 1] * az
                        b = high[z + dz] * (one - az) + high[z + dz + 1] * az
                        light[y, z] = a * (one - ay) + b * ay
                for z in range(nz):
                    light[y, z] = np.float32(0.0) if occupied[x, y, z] else light[y, z]
                    lit[part, x, y, z] |= light[y, z] > np.float32(0.5)
            before, light = light, before


def viewing_directions(n: int = 48, min_elevation_deg: float = -30.0) -> Float[np.ndarray, "n 3"]:
    """Return viewing directions spread evenly over the sphere above an elevation (a Fibonacci lattice).

    Args:
        n: number of directions.
        min_elevation_deg: lowest elevation of a camera, -90 to 90.

    Returns:
        n 3, unit vectors from the cameras to the object.

    Example:
        >>> from zero123s.mesh.visibility import viewing_directions
        >>> directions = viewing_directions(100, min_elevation_deg=0.0)
        >>> directions.shape, bool((directions[:, 2] < 0).all())
        ((100, 3), True)
    """
    low = math.sin(math.radians(min_elevation_deg))
    z = low + (1 - low) * (np.arange(n) + 0.5) / n
    azimuth = np.arange(n) * math.pi * (3 - math.sqrt(5))
    r = np.sqrt(1 - z**2)
    return -np.stack([r * np.cos(azimuth), r * np.sin(azimuth), z], -1)


def _pooled(inside: np.ndarray, stride: int) -> np.ndarray:
    """Return whether any node of each block is inside."""
    if stride == 1:
        return inside
    padding = [(0, -n % stride) for n in inside.shape]
    blocks = np.pad(inside, padding)
    shape = [m for n in blocks.shape for m in (n // stride, stride)]
    return np.asarray(blocks.reshape(shape).any(axis=(1, 3, 5)))


def hidden_nodes(
    inside: Bool[np.ndarray, "X Y Z"], directions: Float[np.ndarray, "N 3"] | None = None, max_nodes: int = MAX_NODES
) -> Bool[np.ndarray, "X Y Z"]:
    """Find the nodes outside the solid that are not visible from outside the grid: cavities, however connected.

    Args:
        inside: X Y Z, which nodes belong to the solid.
        directions: N 3, viewing directions; None = `viewing_directions()`.
        max_nodes: per edge; a finer grid is pooled to this before visibility is traced.

    Returns:
        X Y Z, disjoint from `inside`.
    """
    from scipy.ndimage import binary_erosion

    stride = -(-max(inside.shape) // max_nodes)
    # A frame of empty nodes, where all light begins.
    occupied = np.pad(_pooled(inside, stride), 1)
    visible = np.zeros_like(occupied)
    directions = viewing_directions() if directions is None else directions
    main_axis = np.abs(directions).argmax(1)
    forward = directions[np.arange(len(directions)), main_axis] > 0
    for axis, is_forward in product(range(3), (False, True)):
        chosen = directions[(main_axis == axis) & (forward == is_forward)]
        order = (axis, (axis + 1) % 3, (axis + 2) % 3)
        step = slice(None, None, 1 if is_forward else -1)
        shifts = chosen[:, order[1:]] / np.abs(chosen[:, axis, None])
        grid = np.ascontiguousarray(occupied.transpose(order)[step])
        lit = np.zeros((min(torch.get_num_threads(), len(shifts)), *grid.shape), bool)
        launch(_sweep, grid, np.ascontiguousarray(shifts, np.float64), lit)
        visible |= np.asarray(lit.any(0))[step].transpose(np.argsort(order))
    hidden = ~visible
    if stride > 1:
        # Blocks hold nodes of both sides near the surface; there the fine grid's own values stand.
        hidden = binary_erosion(hidden, np.ones((3, 3, 3), bool))
    hidden = hidden[1:-1, 1:-1, 1:-1]
    for axis in range(3):
        hidden = np.repeat(hidden, stride, axis=axis)
    return hidden[tuple(slice(n) for n in inside.shape)] & ~inside
