"""Texture coordinates: xatlas within a time limit, and a parameterisation that always works."""

import multiprocessing
from dataclasses import dataclass, field, fields
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass
class ChartOptions:
    """How xatlas cuts the surface into charts; names and defaults are xatlas's."""

    max_chart_area: float = 0.0
    """Largest chart; 0 = no limit."""
    max_boundary_length: float = 0.0
    """Longest chart boundary; 0 = no limit."""
    normal_deviation_weight: float = 2.0
    """Price of a face that looks elsewhere than its chart."""
    roundness_weight: float = 0.01
    """Price of ragged charts."""
    straightness_weight: float = 6.0
    """Price of crooked boundaries."""
    normal_seam_weight: float = 4.0
    """Price of charts across normal seams."""
    texture_seam_weight: float = 0.5
    """Price of charts across texture seams."""
    max_cost: float = 2.0
    """Charts grow until this price; lower = more, flatter charts."""
    max_iterations: int = 1
    """Rounds of chart growing; more is better and slower."""


@dataclass
class PackOptions:
    """How xatlas packs charts; names are xatlas's."""

    max_chart_size: int = 0
    """Largest chart in texels; 0 = no limit."""
    padding: int = 2
    """Texels between charts."""
    texels_per_unit: float = 0.0
    """0 = fit into the texture's resolution."""
    resolution: int = 0
    """Texture edge in texels; 0 = the exporter's texture_size."""
    bilinear: bool = True
    """Leave room for bilinear filtering."""
    blockAlign: bool = False
    """Align charts to 4 x 4 blocks, for compressed textures."""
    bruteForce: bool = False
    """Slower, tighter packing."""


@dataclass(frozen=True)
class Unwrap:
    """A mesh whose vertices are split at the seams of its charts."""

    vertex_index: Int[np.ndarray, "W"]
    """Original vertex of each new one."""
    faces: Int[np.ndarray, "F 3"]
    uvs: Float[np.ndarray, "W 2"]
    """In [0, 1], origin at the lower left."""
    method: str
    """"xatlas" or "triangles"."""


@dataclass
class UnwrapOptions:
    """Everything about texture coordinates."""

    texture_size: int = 1024
    time_limit_s: float = 60.0
    """xatlas is stopped after this long and one triangle per face takes over; 0 = triangles at once."""
    chart: ChartOptions = field(default_factory=ChartOptions)
    pack: PackOptions = field(default_factory=PackOptions)


def _apply(target: Any, options: ChartOptions | PackOptions) -> Any:
    for f in fields(options):
        setattr(target, f.name, getattr(options, f.name))
    return target


def _xatlas_worker(pipe: Connection, vertices: np.ndarray, faces: np.ndarray, options: UnwrapOptions) -> None:
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32))
    pack = _apply(xatlas.PackOptions(), options.pack)
    pack.resolution = options.pack.resolution or options.texture_size
    atlas.generate(_apply(xatlas.ChartOptions(), options.chart), pack)
    pipe.send(atlas[0])
    pipe.close()


def _xatlas(vertices: np.ndarray, faces: np.ndarray, options: UnwrapOptions) -> Unwrap | None:
    """Run xatlas in a process of its own, the only way to stop it; None if it took too long or died."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_xatlas_worker, args=(sender, vertices, faces, options), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(options.time_limit_s):
            return None
        index, new_faces, uvs = receiver.recv()
    except EOFError:
        return None
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
        receiver.close()
    return Unwrap(index.astype(np.int64), new_faces.astype(np.int64), uvs.astype(np.float64), "xatlas")


def _triangle_sheet(vertices: np.ndarray, faces: np.ndarray, texture_size: int) -> Unwrap:
    """Give every face a cell of its own, two right triangles per square: many seams, no overlap, no failure."""
    n = len(faces)
    columns = int(np.ceil(np.sqrt((n + 1) // 2)))
    cell = 1.0 / columns
    # The margin keeps the triangles of one square, and neighbouring squares, a texel apart where there is room.
    margin = min(1.0 / texture_size, 0.15 * cell)
    square = np.arange(n) // 2
    origin = np.stack([square % columns, square // columns], -1) * cell
    lower = np.array([[margin, margin], [cell - 2.5 * margin, margin], [margin, cell - 2.5 * margin]])
    upper = cell - lower
    corners = np.where((np.arange(n) % 2 == 0)[:, None, None], lower, upper) + origin[:, None]
    return Unwrap(faces.reshape(-1), np.arange(3 * n).reshape(-1, 3), corners.reshape(-1, 2), "triangles")


def unwrap(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], options: UnwrapOptions) -> Unwrap:
    """Return texture coordinates: xatlas's, or one small triangle per face if xatlas exceeds its time limit."""
    if options.time_limit_s > 0:
        result = _xatlas(vertices, faces, options)
        if result is not None:
            return result
    return _triangle_sheet(vertices, faces, options.texture_size)
