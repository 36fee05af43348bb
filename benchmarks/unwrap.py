"""xatlas on meshes as a whole and in parts: seconds, new vertices and length of the seams.

    python benchmarks/unwrap.py outputs/.../export/model.glb ...

A part is one mesh to xatlas: it grows the charts of several on several cores. Vertices are split at seams; a seam's
length is that of its edges in the mesh's units.
"""

import argparse
import os
import time
from dataclasses import asdict

import numpy as np
import trimesh

from zero123s.mesh import xatlas_worker
from zero123s.mesh.unwrap import UnwrapOptions

SIZES = (1 << 62, 16000, 8000, xatlas_worker.FACES_PER_PART, 2000)
"""Faces of a part, at least; the first: the whole mesh."""


def cpu_seconds() -> float:
    """Return CPU seconds of all threads."""
    times = os.times()
    return times.user + times.system


def compare(path: str) -> None:
    """Print a row per size of the parts."""
    mesh = trimesh.load_mesh(path, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.uint32)
    options = UnwrapOptions()
    pack = asdict(options.pack) | {"resolution": options.texture_size}
    print(f"{path}: {len(faces)} faces\nparts  seconds  CPU seconds  vertices   seams")
    for size in SIZES:
        xatlas_worker.FACES_PER_PART = size
        began, cpu = time.monotonic(), cpu_seconds()
        index, new_faces, _ = xatlas_worker.unwrap(vertices, faces, asdict(options.chart), pack)
        seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu
        edges = np.sort(new_faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, count = np.unique(edges, axis=0, return_counts=True)
        ends = vertices[index[unique[count == 1]]]
        seams = 0.5 * np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum()
        parts = len(xatlas_worker.split(vertices, faces))
        print(f"{parts:5}  {seconds:7.2f}  {cpu:11.2f}  {len(index):8}  {seams:6.1f}", flush=True)


def main() -> None:
    """Compare on every mesh."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="+", help="files that trimesh reads")
    for path in parser.parse_args().meshes:
        compare(path)


if __name__ == "__main__":
    main()
