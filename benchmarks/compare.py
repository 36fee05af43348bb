"""How every benchmark here compares: both sides in one process, one thread, CPU time, interleaved, median.

CPU time and ratios, because other programs on the machine stretch wall time by any factor.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.ops.ray_marching import Samples, march

STEP = 3**0.5 / 512
"""512 steps along the diagonal of the unit cube."""


def arguments(
    description: str | None, files: tuple[str, ...] = (), repeats: int = 5, **numbers: int
) -> argparse.Namespace:
    """Return --repeats, --output, more files and the given whole numbers; limits torch to one thread."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    for name in files:
        parser.add_argument(f"--{name}", type=Path)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    torch.set_num_threads(1)
    return parser.parse_args()


def cpu_seconds(function: Callable[[], object]) -> float:
    """Return the process CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def medians(sides: dict[str, Callable[[], object]], repeats: int, warm_up: bool = True) -> dict[str, float]:
    """Return each side's median CPU seconds; the sides take turns."""
    if warm_up:
        for function in sides.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, function in sides.items():
            times[name].append(cpu_seconds(function))
    return {name: statistics.median(values) for name, values in times.items()}


def report(results: dict[str, dict], row: str, values: dict[str, float], ratios: dict[str, float]) -> None:
    """Print one row and add it to the results."""
    results[row] = {"cpu_s": values, "ratio": ratios}
    print(f"{row}: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()), end="  (")
    print(", ".join(f"{k} {1e3 * v:.1f} ms" for k, v in values.items()) + ")", flush=True)


def save(results: dict[str, dict], output: Path | None) -> None:
    """Write the results to the given file."""
    if output:
        output.write_text(json.dumps({"torch": torch.__version__, "rows": results}, indent=2))


def ball_scene(size: int, grid: int = 32, views: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return origins and directions of `views` of size^2 rays in the unit cube's frame, and a ball's occupancy grid.

    The ball fills a tenth of the box.
    """
    azimuth = 40.0 * torch.arange(views)
    cameras = orbit_cameras(torch.full((views,), 20.0), azimuth, 3.8, 20.0, size, size)
    rays = generate_rays(cameras)
    centres = (torch.stack(torch.meshgrid(*[torch.arange(grid)] * 3, indexing="ij"), -1) + 0.5) / grid - 0.5
    ball = centres.norm(dim=-1) < (0.1 * 0.75 / torch.pi) ** (1 / 3)
    scale = 1 / 1.4  # the frustum's half height at the origin is 0.67
    return rays.rays_o.reshape(-1, 3) * scale, rays.rays_d.reshape(-1, 3), ball


def ball_samples(size: int, grid: int = 32, views: int = 1) -> tuple[Samples, torch.Tensor, torch.Tensor]:
    """Return the samples of `ball_scene` and its rays."""
    rays_o, rays_d, ball = ball_scene(size, grid, views)
    return march(rays_o, rays_d, torch.tensor([-0.5] * 3 + [0.5] * 3), ball, STEP), rays_o, rays_d


def ray_ordered_points(count: int) -> torch.Tensor:
    """Return the first `count` sample positions, ray by ray, in [0, 1]."""
    size = 64
    while True:
        samples, rays_o, rays_d = ball_samples(size)
        if len(samples.t_starts) >= count:
            return samples.positions(rays_o, rays_d)[:count].contiguous() + 0.5
        size *= 2
