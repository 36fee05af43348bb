"""The blending of 2D Gaussians: numba against plain torch, and how its cost grows with their number.

    python benchmarks/gaussian_splatting.py

Forward and backward passes, at 128 x 128 pixels, of Gaussians spread over the surface of a ball as trained ones are:
smaller the more there are, so that together they cover the same area. Medians of CPU times, on one thread by default.
"""

import argparse
import statistics
import time

import torch

from zero123s.ops.cameras import generate_rays, orbit_cameras
from zero123s.ops.gaussian_splatting import blend, project_gaussians
from zero123s.ops.rasterization import pinhole

SIZE = 128


def gaussians(n: int) -> list[torch.Tensor]:
    """Return means, scales, quaternions, opacities and colours of n flat Gaussians on a ball of radius 0.5."""
    g = torch.Generator().manual_seed(n)
    means = 0.5 * torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    spacing = (4 * torch.pi * 0.25 / n) ** 0.5
    scales = spacing * (0.5 + 0.5 * torch.rand(n, 3, generator=g))
    quaternions = torch.randn(n, 4, generator=g)
    return [means, scales, quaternions, 0.2 + 0.7 * torch.rand(n, generator=g), torch.rand(n, 3, generator=g)]


def once(cloud: list[torch.Tensor], backend: str) -> tuple[float, float]:
    """Return CPU seconds of blending forward and backward, projection left out."""
    centers, matrices = pinhole(generate_rays(orbit_cameras(15.0, 30.0, height=SIZE, width=SIZE)))
    means, scales, quaternions, opacities, colors = cloud
    with torch.no_grad():
        projected = project_gaussians(means, scales, quaternions, opacities, centers, matrices, SIZE, SIZE)
    projected.means.requires_grad_()
    values = torch.cat([colors[None], projected.depths[..., None]], dim=-1).requires_grad_()
    started = time.process_time()
    image, covered = blend(projected, opacities, values, SIZE, SIZE, backend)
    middle = time.process_time()
    (image.sum() + covered.sum()).backward()
    return middle - started, time.process_time() - middle


def median(cloud: list[torch.Tensor], backend: str, runs: int) -> tuple[float, float]:
    """Return the median seconds, forward and backward."""
    times = [once(cloud, backend) for _ in range(runs)]
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    once(gaussians(100), "numba")
    cloud = gaussians(10_000)
    numba, reference = median(cloud, "numba", 5), median(cloud, "reference", 1)
    for name, slow, fast in zip(("forward", "backward"), reference, numba, strict=True):
        print(
            f"10,000 Gaussians, {SIZE} x {SIZE}, {name}: reference {slow:.2f} s, numba {fast:.4f} s: {slow / fast:.0f}x"
        )
    for n in (1_000, 3_000, 10_000, 30_000, 100_000):
        forward, backward = median(gaussians(n), "numba", 5)
        print(f"{n:>8,} Gaussians: forward {1000 * forward:.1f} ms, backward {1000 * backward:.1f} ms")


if __name__ == "__main__":
    main()
