"""A whole NeRF step (march, encode, network, composite, loss, backward, Adam) against the same from the peers' parts.

Run: pip install nerfacc==0.5.3 && python benchmarks/nerf_step.py [--size 64] [--output nerf_step.json]
The peer: dense march, a torch encoding of nerfstudio's kind, plain layers, nerfacc's batched functions, plain Adam.
Same samples, all of them with gradients on both sides. Peak memory is that of one process per side.
"""

import itertools
import json
import resource
import subprocess
import sys
from collections.abc import Callable

import torch
from compare import STEP, arguments, ball_scene, medians, report, save
from peers import dense_march, nerfstudio_encode, nerfstudio_table
from torch import Tensor, nn

from zero123s.ops.compositing import composite
from zero123s.ops.hash_grid import HashGrid, encode
from zero123s.ops.networks import MLP
from zero123s.ops.ray_marching import march

GRID = HashGrid()
BOX = torch.tensor([-0.5] * 3 + [0.5] * 3)


def our_step(size: int, views: int = 1) -> Callable[[], Tensor]:
    """Return a step on this project's operations."""
    rays_o, rays_d, ball = ball_scene(size, views=views)
    table = nn.Parameter(1e-4 * torch.randn(GRID.n_rows, 2))
    table.grad = torch.zeros_like(table)
    network = MLP([GRID.n_output_dims, 64, 64, 4], "relu", "none")
    optimizer = torch.optim.Adam([table, *network.parameters()], lr=0.01, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        samples = march(rays_o, rays_d, BOX, ball, STEP)
        x = samples.positions(rays_o, rays_d) + 0.5
        out = network(encode(x, table, GRID, grad_buffer=lambda: table.grad))  # type: ignore[arg-type,return-value]
        sigma, rgb = torch.nn.functional.softplus(out[:, 0]), out[:, 1:].sigmoid()
        _, opacity, _, colour = composite(sigma, samples.t_starts, samples.t_ends, samples.packed_info, rgb)
        loss = (colour + 1 - opacity[:, None] - 0.3).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def peer_step(size: int) -> Callable[[], Tensor]:
    """Return a step on the peers' algorithms."""
    from nerfacc import accumulate_along_rays, render_weight_from_density

    rays_o, rays_d, ball = ball_scene(size)
    table = nn.Parameter(1e-4 * nerfstudio_table(GRID))
    widths = [GRID.n_output_dims, 64, 64, 4]
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimizer = torch.optim.Adam([table, *network.parameters()], lr=0.01)

    def step() -> Tensor:
        optimizer.zero_grad()
        t, mask, x = dense_march(rays_o, rays_d, ball, STEP)
        out = network(nerfstudio_encode(x[mask] + 0.5, table, GRID))
        sigma = torch.zeros_like(t).masked_scatter(mask, torch.nn.functional.softplus(out[:, 0]))
        rgb = x.new_zeros(x.shape).masked_scatter(mask[..., None], out[:, 1:].sigmoid())
        weights, _, _ = render_weight_from_density(t, t + STEP, sigma)
        colour, opacity = accumulate_along_rays(weights, rgb), accumulate_along_rays(weights)
        loss = (colour + 1 - opacity - 0.3).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


SIDES = {"peer": peer_step, "numba": our_step}


def peak_gib(side: str, size: int) -> float:
    """Return the peak memory of a process that takes two steps of one side."""
    done = subprocess.run([sys.executable, __file__, side, str(size)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Print and write the ratios."""
    args = arguments(__doc__, size=64)
    results: dict[str, dict] = {}
    # First, because a child's peak counts from that of the process it was started from.
    peak = {name: peak_gib(name, args.size) for name in SIDES}
    results[f"peak memory, {args.size}^2"] = {"GiB": peak, "ratio": peak["numba"] / peak["peer"]}
    print(f"peak memory: {peak['numba']:.2f} of {peak['peer']:.2f} GiB, {peak['numba'] / peak['peer']:.2f}", flush=True)
    m = medians({name: make(args.size) for name, make in SIDES.items()}, args.repeats)
    report(results, f"step, {args.size}^2", m, {"ratio": m["peer"] / m["numba"]})
    save(results, args.output)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in SIDES:
        torch.set_num_threads(1)
        one_step = SIDES[sys.argv[1]](int(sys.argv[2]))
        one_step()
        one_step()
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))
    else:
        main()
