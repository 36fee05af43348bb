"""CPU seconds until every kernel has run once: compiled anew, and loaded from numba's cache.

Run: python benchmarks/kernel_start.py [--output kernel_start.json]
"""

import json
import os
import subprocess
import sys
import tempfile

from compare import arguments, cpu_seconds, save


def first_calls() -> float:
    """Return the CPU seconds of a step that uses every kernel, with trained normals; imports not counted."""
    import torch

    from zero123s.ops.compositing import composite
    from zero123s.ops.encoded_networks import evaluate_together
    from zero123s.ops.hash_grid import HashGrid
    from zero123s.ops.ray_marching import march_visible

    def everything() -> None:
        grid = HashGrid(n_levels=2, log2_hashmap_size=8)
        table = torch.rand(grid.n_rows, 2, requires_grad=True)
        box, cells = torch.tensor([0.0, 0, 0, 1, 1, 1]), torch.ones(4, 4, 4, dtype=torch.bool)
        rays_o, rays_d = torch.tensor([[0.5, 0.5, -1.0]]), torch.tensor([[0.0, 0.0, 1.0]])

        def clear(x):
            return torch.full((len(x),), 0.1)

        samples = march_visible(rays_o, rays_d, box, cells, 0.1, clear, backend="numba")
        x = samples.positions(rays_o, rays_d)
        networks = [[torch.rand(8, 4), torch.rand(n, 8)] for n in (1, 3)]
        field = evaluate_together(x, table, grid, *networks, gradient=True)
        values = torch.cat([field.features, field.gradient], dim=1)
        out = composite(field.value, samples.t_starts, samples.t_ends, samples.packed_info, values, backend="numba")
        out[3].sum().backward()

    torch.set_num_threads(1)
    return cpu_seconds(everything)


def main() -> None:
    """Print and write both times."""
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as cache:
        run = [sys.executable, __file__, "child"]
        times = [
            json.loads(
                subprocess.run(
                    run, env={**os.environ, "NUMBA_CACHE_DIR": cache}, capture_output=True, check=True
                ).stdout
            )
            for _ in range(2)
        ]
    print(f"compiled {times[0]:.1f} s, cached {times[1]:.2f} s")
    save({"first calls": {"cpu_s": {"compiled": times[0], "cached": times[1]}}}, args.output)


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        print(json.dumps(first_calls()))
    else:
        main()
