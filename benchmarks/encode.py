"""Hash encoding: kernels and the torch fallback against a torch encoding of nerfstudio's kind.

Run: python benchmarks/encode.py [--points 65536] [--repeats 5] [--output encode.json]
All sides start from a fresh gradient, as a training step does; "double backward" is what trained normals add.
"""

from collections.abc import Callable
from functools import partial

import torch
from compare import arguments, medians, ray_ordered_points, report, save
from peers import nerfstudio_encode, nerfstudio_table
from torch import Tensor

from zero123s.ops.hash_grid import HashGrid, encode, position_gradient

GRID = HashGrid()
MODES = ("forward", "forward + table", "forward + table + positions")


def step(encoder: Callable[..., Tensor], x: Tensor, table: Tensor, mode: str) -> None:
    """Run one forward pass, with the gradients that `mode` names."""
    table = table.detach().requires_grad_(mode != "forward")
    x = x.detach().requires_grad_(mode == "forward + table + positions")
    y = encoder(x, table, GRID)
    if mode != "forward":
        y.backward(torch.ones_like(y))


def normals(x: Tensor, table: Tensor, train: bool) -> None:
    """Compute position gradients; `train`: differentiate them again by table and features."""
    table = table.detach().requires_grad_()
    y = torch.ones(len(x), GRID.n_output_dims, requires_grad=True)
    normal = position_gradient(x, table, y, GRID, backend="numba")
    if train:
        normal.backward(torch.ones_like(normal))


def main() -> None:
    """Print and write the ratios."""
    args = arguments(__doc__, points=65536)
    x = ray_ordered_points(args.points)
    table = torch.randn(GRID.n_rows, 2, generator=torch.Generator().manual_seed(1))
    encoders = {
        "peer": (nerfstudio_encode, nerfstudio_table(GRID)),
        "numba": (partial(encode, backend="numba"), table),
        "fallback": (partial(encode, backend="reference"), table),
    }
    results: dict[str, dict] = {}
    for mode in MODES:
        sides = {name: partial(step, e, x, t, mode) for name, (e, t) in encoders.items()}
        for name, (e, t) in encoders.items():  # compiles; the whole peer is too slow to warm up
            step(e, x[: 64 if name == "peer" else None], t, mode)
        m = medians(sides, args.repeats, warm_up=False)
        ratios = {"numba": m["peer"] / m["numba"], "fallback": m["peer"] / m["fallback"]}
        report(results, f"{mode}, {args.points} points", m, ratios)
    sides = {
        "forward + table": partial(step, encoders["numba"][0], x, table, MODES[1]),
        "normals": partial(normals, x, table, False),
        "trained normals": partial(normals, x, table, True),
    }
    m = medians(sides, args.repeats)
    ratio = (m["trained normals"] - m["normals"]) / m["forward + table"]
    report(results, f"double backward / (forward + table), {args.points} points", m, {"ratio": ratio})
    save(results, args.output)


if __name__ == "__main__":
    main()
