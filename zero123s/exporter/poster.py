"""Renders the exported file itself, read back from disk."""

from pathlib import Path

import numpy as np

from zero123s.images.encode import encode_image, write_atomically
from zero123s.mesh.readers import read_mesh
from zero123s.ops.cameras import orbit_cameras, sphere_fit_distance
from zero123s.ops.rasterization.software import on_white, render_mesh

VIEWS = ((10.0, 0.0), (20.0, 60.0), (10.0, 180.0), (40.0, 250.0))
"""Elevation and azimuth in degrees: front, side, back, from above."""


def poster(mesh_file: Path, size: int = 384) -> np.ndarray:
    """Render four lit views of a mesh file on white, two by two.

    Args:
        mesh_file: any format that `read_mesh` reads.
        size: edge of each view in pixels.

    Returns:
        2 size x 2 size x 3 in [0, 1]: front, side, back, from above.

    Raises:
        MeshError: the file cannot be read.
    """
    mesh = read_mesh(mesh_file)
    middle = (mesh.vertices.max(0) + mesh.vertices.min(0)) / 2
    mesh.vertices = mesh.vertices - middle
    distance = sphere_fit_distance(1.05 * float(np.linalg.norm(mesh.vertices, axis=1).max()), 20.0)
    tiles = [
        on_white(render_mesh(mesh, orbit_cameras(elevation, azimuth, distance, 20.0, size, size), lit=True))
        for elevation, azimuth in VIEWS
    ]
    return np.concatenate([np.concatenate(tiles[:2], axis=1), np.concatenate(tiles[2:], axis=1)])


def write_poster(mesh_file: Path, path: Path) -> Path:
    """Write the poster of a mesh file as PNG.

    Args:
        mesh_file: any format that `read_mesh` reads.
        path: of the PNG.

    Returns:
        `path`.

    Raises:
        MeshError: the mesh file cannot be read.
        OutputError: the PNG cannot be written.
    """
    write_atomically(path, encode_image(poster(mesh_file), "png"))
    return path
