"""Hash encoding against a torch encoding of nerfstudio's kind: one thread, process CPU time, interleaved, median.

Run: OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/encode.py [points] [output.json]
The peer is that encoding's algorithm in plain torch: every level hashed, all levels at once, seven interpolations.
Both sides start from a fresh gradient, as a training step does.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from zero123s.ops.hash_grid import HashGrid, encode

REPEATS = 5
GRID = HashGrid()


def peer_encode(x: Tensor, table: Tensor) -> Tensor:
    """Encode with every level hashed, floor and ceil corners, all levels in one tensor."""
    n_rows = 2**GRID.log2_hashmap_size
    scales = GRID.base_resolution * GRID.per_level_scale ** torch.arange(GRID.n_levels)
    scaled = x[:, None] * scales.floor()[:, None]
    low, high = scaled.floor().int(), scaled.ceil().int()
    fraction = scaled - low
    primes = torch.tensor([1, 2654435761, 805459861])

    def gather(bits: tuple[int, int, int]) -> Tensor:
        corner = torch.stack([(high if bit else low)[..., axis] for axis, bit in enumerate(bits)], dim=-1)
        product = corner * primes
        row = (product[..., 0] ^ product[..., 1] ^ product[..., 2]) % n_rows
        return table[row + torch.arange(GRID.n_levels) * n_rows]

    features = [gather((c & 1, c >> 1 & 1, c >> 2)) for c in range(8)]
    for axis in range(3):
        f = fraction[..., axis : axis + 1]
        features = [a * (1 - f) + b * f for a, b in zip(features[::2], features[1::2], strict=True)]
    return features[0].flatten(1)


def cpu_seconds(function: Callable[[], object]) -> float:
    """Return the process CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def step(encoder: Callable[[Tensor, Tensor], Tensor], x: Tensor, table: Tensor, mode: str) -> None:
    """Run one forward pass, with the gradients that `mode` names."""
    table = table.detach().requires_grad_(mode != "forward")
    x = x.detach().requires_grad_(mode == "forward + table + positions")
    y = encoder(x, table)
    if mode != "forward":
        y.backward(torch.ones_like(y))


def ray_ordered_points(count: int) -> Tensor:
    """Return runs of 64 points on segments inside the unit cube."""
    g = torch.Generator().manual_seed(0)
    ends = torch.rand(2, (count + 63) // 64, 1, 3, generator=g)
    return torch.lerp(ends[0], ends[1] * 0.3 + 0.35, torch.linspace(0, 0.3, 64)[:, None]).reshape(-1, 3)[:count]


def main(count: int = 65536, output: str = "") -> None:
    """Print and write the ratio of CPU times for each mode."""
    torch.set_num_threads(1)
    x, g = ray_ordered_points(count), torch.Generator().manual_seed(1)
    peer_table = torch.randn(GRID.n_levels * 2**GRID.log2_hashmap_size, 2, generator=g)
    table = torch.randn(GRID.n_rows, 2, generator=g)
    sides = {
        "peer": (peer_encode, peer_table),
        "numba": (lambda x, t: encode(x, t, GRID, backend="numba"), table),
        "reference": (lambda x, t: encode(x, t, GRID, backend="reference"), table),
    }
    results = {}
    for mode in ("forward", "forward + table", "forward + table + positions"):
        for encoder, its_table in sides.values():
            step(encoder, x[:64], its_table, mode)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(REPEATS):
            for name, (encoder, its_table) in sides.items():
                times[name].append(cpu_seconds(lambda e=encoder, t=its_table, m=mode: step(e, x, t, m)))
        median = {name: statistics.median(values) for name, values in times.items()}
        ratios = {f"ratio_{name}": median["peer"] / median[name] for name in ("numba", "reference")}
        results[mode] = {"points": count, **{f"{k}_cpu_s": v for k, v in median.items()}, **ratios}
        print(mode, {k: round(v, 4) for k, v in results[mode].items()}, flush=True)
    if output:
        Path(output).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(*([int(sys.argv[1])] if len(sys.argv) > 1 else []), *sys.argv[2:3])
