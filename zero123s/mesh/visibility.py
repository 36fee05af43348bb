"""Visibility from outside: nodes of a grid that no view reaches are part of the solid."""

import math

import numba
import numpy as np
from jaxtyping import Bool, Float

MAX_NODES = 264
"""Nodes per edge at which light is sent through the grid by default; finer grids are pooled first."""


@numba.njit(cache=True)
def _sweep(occupied, shift_y, shift_z, visible):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Propagate parallel light along the first axis, shifted per slice, and mark the nodes it reaches.

    Light is interpolated between nodes, so that what falls through a hole one node wide is soon gone.
    """
    nx, ny, nz = occupied.shape
    before = np.ones((ny, nz), np.float32)
    light = np.ones((ny, nz), np.float32)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                v = np.float32(1.0)
                fy, fz = y - shift_y, z - shift_z
                if x > 0 and 0.0 <= fy < ny - 1 and 0.0 <= fz < nz - 1:
                    iy, iz = int(fy), int(fz)
                    ay, az = np.float32(fy - iy), np.float32(fz - iz)
                    low = before[iy, iz] * (1 - az) + before[iy, iz + 1] * az
                    high = before[iy + 1, iz] * (1 - az) + before[iy + 1, iz + 1] * az
                    v = low * (1 - ay) + high * ay
                if occupied[x, y, z]:
                    v = np.float32(0.0)
                elif v > 0.5:
                    visible[x, y, z] = True
                light[y, z] = v
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
    for direction in viewing_directions() if directions is None else directions:
        axis = int(np.abs(direction).argmax())
        order = (axis, (axis + 1) % 3, (axis + 2) % 3)
        along, sideways = direction[axis], direction[[order[1], order[2]]] / abs(direction[axis])
        step = slice(None, None, 1 if along > 0 else -1)
        lit = np.zeros([occupied.shape[a] for a in order], bool)
        _sweep(np.ascontiguousarray(occupied.transpose(order)[step]), sideways[0], sideways[1], lit)
        visible |= lit[step].transpose(np.argsort(order))
    hidden = ~visible
    if stride > 1:
        # Blocks hold nodes of both sides near the surface; there the fine grid's own values stand.
        hidden = binary_erosion(hidden, np.ones((3, 3, 3), bool))
    hidden = hidden[1:-1, 1:-1, 1:-1]
    for axis in range(3):
        hidden = np.repeat(hidden, stride, axis=axis)
    return hidden[tuple(slice(n) for n in inside.shape)] & ~inside
