"""xatlas in a process of its own: a pickled mesh and options on stdin, pickled texture coordinates on stdout."""

import pickle
import sys
from typing import Any

import numpy as np
import xatlas
from jaxtyping import Float, Int

FACES_PER_PART = 4000
"""At least. xatlas takes longer per face the larger a mesh is, and grows the charts of a mesh on one core: see
docs/meshes.md. Smaller parts would get more charts and seams than a whole mesh."""


def _with(target: Any, options: dict[str, Any]) -> Any:
    for name, value in options.items():
        setattr(target, name, value)
    return target


def split(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> list[Int[np.ndarray, "G"]]:
    """Halve a mesh across its longest side until a part has less than 8,000 faces.

    Args:
        vertices: V 3.
        faces: F 3.

    Returns:
        The faces' indices, part by part, of equal size and ascending.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.xatlas_worker import split
        >>> [part.tolist() for part in split(np.eye(3), np.array([[0, 1, 2]]))]
        [[0]]
    """
    centres = vertices[faces].mean(1)
    parts = [np.arange(len(faces))]
    while len(parts[0]) >= 2 * FACES_PER_PART:
        parts = [half for part in parts for half in _halves(centres, part)]
    return parts


def _halves(centres: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(centres[part, np.ptp(centres[part], axis=0).argmax()], kind="stable")
    first, second = part[order[: len(part) // 2]], part[order[len(part) // 2 :]]
    return np.sort(first), np.sort(second)


def unwrap(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], chart: dict[str, Any], pack: dict[str, Any]
) -> tuple[Int[np.ndarray, "W"], Int[np.ndarray, "F 3"], Float[np.ndarray, "W 2"]]:
    """Unwrap a mesh in parts, all into one texture.

    Args:
        vertices: V 3.
        faces: F 3.
        chart: xatlas's options for charts, by its names.
        pack: its options for packing.

    Returns:
        W, the original of each new vertex; F 3, the same faces between new vertices; and W 2, their texture coordinates.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.xatlas_worker import unwrap
        >>> vertex_index, faces, uvs = unwrap(np.eye(3, dtype="f"), np.array([[0, 1, 2]], np.uint32), {}, {})
        >>> vertex_index[faces].tolist(), uvs.shape
        ([[0, 1, 2]], (3, 2))
    """
    atlas = xatlas.Atlas()
    parts = split(vertices, faces)
    used = []
    for part in parts:
        index, local = np.unique(faces[part], return_inverse=True)
        used.append(index)
        atlas.add_mesh(vertices[index], local.reshape(-1, 3).astype(np.uint32))
    atlas.generate(_with(xatlas.ChartOptions(), chart), _with(xatlas.PackOptions(), pack))
    vertex_index, new_faces, uvs = [], np.empty(faces.shape, np.int64), []
    for n, part in enumerate(parts):
        index, between, coordinates = atlas[n]
        new_faces[part] = between.astype(np.int64) + sum(map(len, vertex_index))
        vertex_index.append(used[n][index])
        uvs.append(coordinates)
    return np.concatenate(vertex_index), new_faces, np.concatenate(uvs)


def main() -> None:
    """Unwrap one mesh."""
    pickle.dump(unwrap(*pickle.load(sys.stdin.buffer)), sys.stdout.buffer)


if __name__ == "__main__":
    main()
