"""Sampling a field near its surface only against sampling it everywhere, with equal signs.

Run: python benchmarks/sparse_field.py [--resolution 256] [--repeats 1] [--output sparse_field.json]
"""

import numpy as np
import torch
from compare import arguments, cpu_seconds, report, save

from zero123s.geometry.implicit_volume import ImplicitVolume
from zero123s.mesh.isosurface import sample_dense, sample_sparse

LEVEL = 5.0


def main() -> None:
    """Print and write the ratio and the share of nodes that were evaluated."""
    args = arguments(__doc__, resolution=256)
    torch.manual_seed(0)
    geometry = ImplicitVolume(ImplicitVolume.Config(radius=1.0)).eval()
    with torch.no_grad():
        geometry.encoding.table.mul_(2e3)  # bumps of the size that training makes
    lower, upper = np.full(3, -1.0), np.full(3, 1.0)
    grids = {}

    def dense() -> None:
        with torch.no_grad():
            grids["dense"] = sample_dense(geometry.density, args.resolution, lower, upper)

    def sparse() -> None:
        with torch.no_grad():
            grids["sparse"] = sample_sparse(geometry.density, LEVEL, args.resolution, lower, upper)

    geometry.density(torch.zeros(1, 3))  # compiles
    m = {"dense": cpu_seconds(dense), "sparse": cpu_seconds(sparse)}
    different = int(((grids["dense"].values > LEVEL) != (grids["sparse"].values > LEVEL)).sum())
    share = grids["sparse"].n_evaluated / grids["dense"].n_evaluated
    results: dict[str, dict] = {}
    report(results, f"field, {args.resolution}^3", m, {"ratio": m["dense"] / m["sparse"], "evaluated": share})
    results[f"field, {args.resolution}^3"]["different signs"] = different
    print(f"nodes on another side: {different}")
    save(results, args.output)


if __name__ == "__main__":
    main()
