"""Texture coordinates: xatlas within a time limit, and a parameterisation that always succeeds."""

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Int

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_TICKS = 0.5
Tick = Callable[[float], None]


@dataclass
class ChartOptions:
    """xatlas's options for cutting the surface into charts, with its names and defaults."""

    max_chart_area: float = 0.0
    """Largest chart; 0 = no limit."""
    max_boundary_length: float = 0.0
    """Longest chart boundary; 0 = no limit."""
    normal_deviation_weight: float = 2.0
    """Cost of a deviation of the face normal from the chart's."""
    roundness_weight: float = 0.01
    """Cost of irregular charts."""
    straightness_weight: float = 6.0
    """Cost of curved boundaries."""
    normal_seam_weight: float = 4.0
    """Cost of charts across normal seams."""
    texture_seam_weight: float = 0.5
    """Cost of charts across texture seams."""
    max_cost: float = 2.0
    """Charts grow up to this cost; lower = more, flatter charts."""
    max_iterations: int = 1
    """Rounds of chart growing; more is better and slower."""


@dataclass
class PackOptions:
    """xatlas's options for packing charts, with its names."""

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
    reason: str | None = None
    """Why xatlas failed, if it did."""


@dataclass
class UnwrapOptions:
    """Settings of the texture coordinates."""

    texture_size: int = 1024
    time_limit_s: float = 60.0
    """xatlas is stopped after this time and replaced by one triangle per face; 0 = triangles at once."""
    chart: ChartOptions = field(default_factory=ChartOptions)
    pack: PackOptions = field(default_factory=PackOptions)


def _xatlas(vertices: np.ndarray, faces: np.ndarray, options: UnwrapOptions, tick: Tick) -> Unwrap | str:
    """Run xatlas in a process of its own, the only way to stop it; returns the reason if there is no result."""
    pack = asdict(options.pack) | {"resolution": options.pack.resolution or options.texture_size}
    job = (np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32))
    # Not multiprocessing: that would run the caller's own script a second time, imports and all.
    command = [sys.executable, "-m", "zero123s.mesh.xatlas_worker"]
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH")) if p)
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    with process:
        try:
            answer, said = _wait(process, pickle.dumps((*job, asdict(options.chart), pack)), options.time_limit_s, tick)
        except subprocess.TimeoutExpired:
            return f"xatlas took longer than unwrap_time_limit_s, {options.time_limit_s:g} s"
        finally:
            process.kill()
    if process.returncode != 0:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        return f"xatlas failed with exit code {process.returncode} {' '.join(last)}".strip()
    index, new_faces, uvs = pickle.loads(answer)
    return Unwrap(index.astype(np.int64), new_faces.astype(np.int64), uvs.astype(np.float64), "xatlas")


def _wait(process: subprocess.Popen, job: bytes, limit_s: float, tick: Tick) -> tuple[bytes, bytes]:
    """Send a process its job; return its stdout and stderr. Raises TimeoutExpired after `limit_s`."""
    # Not by communicate(job): what a slow start has not read before the first tick would never be sent.
    stdin, process.stdin = process.stdin, None
    threading.Thread(target=_send, args=(stdin, job), daemon=True).start()
    started = time.monotonic()
    while True:
        passed = time.monotonic() - started
        tick(passed)
        try:
            return process.communicate(timeout=min(SECONDS_BETWEEN_TICKS, max(limit_s - passed, 0)))
        except subprocess.TimeoutExpired:
            if time.monotonic() - started >= limit_s:
                raise


def _send(stdin: IO[bytes], job: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), stdin:  # the process may have been stopped
        stdin.write(job)


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


def unwrap(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    options: UnwrapOptions,
    tick: Tick = lambda seconds: None,
) -> Unwrap:
    """Compute texture coordinates by xatlas, or one small triangle per face where xatlas has no result in time.

    Args:
        vertices: V 3.
        faces: F 3.
        options: texture size, time limit and xatlas's settings.
        tick: called twice a second with the seconds so far; xatlas reports no progress of its own.

    Returns:
        The mesh split at the seams, its texture coordinates, and the method that made them.

    Example:
        >>> import numpy as np
        >>> from zero123s.mesh.unwrap import UnwrapOptions, unwrap
        >>> result = unwrap(np.eye(3), np.array([[0, 1, 2]]), UnwrapOptions(time_limit_s=0))
        >>> result.method, result.uvs.shape
        ('triangles', (3, 2))
    """
    if options.time_limit_s <= 0:
        return _triangle_sheet(vertices, faces, options.texture_size)
    result = _xatlas(vertices, faces, options, tick)
    if isinstance(result, Unwrap):
        return result
    logger.warning("%s; every face gets a small triangle of its own instead.", result)
    return replace(_triangle_sheet(vertices, faces, options.texture_size), reason=result)
