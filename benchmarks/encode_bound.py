"""The encoding kernels as a fraction of what random reads allow: the same rows in the same order, nothing else.

Run: python benchmarks/encode_bound.py [--points 262144] [--output encode_bound.json]
"""

import numpy as np
import torch
from compare import arguments, medians, ray_ordered_points, report, save
from numba import njit

from zero123s.ops.hash_grid import HashGrid
from zero123s.ops.hash_grid import numba as kernels
from zero123s.ops.hash_grid.reference import corner_rows

GRID = HashGrid()


@njit(cache=True)
def read(table, rows):
    """Sum the given rows of eight bytes."""
    total0, total1 = np.float32(0), np.float32(0)
    for i in range(rows.shape[0]):
        value = table[rows[i]]
        total0 += value.real
        total1 += value.imag
    return total0 + total1


@njit(cache=True)
def read_modify_write(table, rows):
    """Add one to the given rows of eight bytes."""
    for i in range(rows.shape[0]):
        old = table[rows[i]]
        table[rows[i]] = complex(old.real + np.float32(1), old.imag + np.float32(1))


def main() -> None:
    """Print and write the fractions."""
    args = arguments(__doc__, points=262144)
    x, table = ray_ordered_points(args.points), torch.randn(GRID.n_rows, 2)
    axes, sizes = x.t().contiguous(), kernels._Sizes.of(GRID.levels)
    rows = []
    for level in GRID.levels:  # level by level, point by point, corner by corner: the order of the kernels
        base = torch.floor(axes * level.scale + 0.5).long()
        rows.append((corner_rows(base[:, None], (level,))[0].t().flatten() + level.offset).int())
    order = torch.cat(rows).numpy()
    grad, buffer = torch.randn(GRID.n_output_dims, len(x)).t(), torch.zeros_like(table)
    out, pairs = torch.empty(GRID.n_output_dims, len(x)), table.view(torch.float64)
    sums = torch.view_as_complex(table).numpy(), torch.view_as_complex(buffer).numpy()
    sides = {
        "read bound": lambda: read(sums[0], order),
        "forward": lambda: kernels.launch(kernels._gather, axes, axes, False, pairs, *sizes, out),
        "read-modify-write bound": lambda: read_modify_write(sums[1], order),
        "table gradient": lambda: kernels._add_to_table(axes, None, grad, sizes, buffer),
    }
    m = medians(sides, args.repeats)
    ratios = {
        "forward": m["read bound"] / m["forward"],
        "table gradient": m["read-modify-write bound"] / m["table gradient"],
    }
    results: dict[str, dict] = {}
    report(results, f"fraction of the random-read bound, {args.points} points", m, ratios)
    save(results, args.output)


if __name__ == "__main__":
    main()
