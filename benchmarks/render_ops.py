"""Marching against a dense tensor march, compositing against nerfacc's batched CPU functions; same samples.

Run: pip install nerfacc==0.5.3 && python benchmarks/render_ops.py [--size 128] [--grid 32] [--output render_ops.json]
nerfacc's packed functions need CUDA; its batched ones (rays padded to one length) run on a CPU.
"""

import torch
from compare import STEP, arguments, ball_scene, medians, report, save
from nerfacc import accumulate_along_rays, render_weight_from_density
from peers import dense_march, padded

from zero123s.ops.compositing import composite
from zero123s.ops.ray_marching import march

BOX = torch.tensor([-0.5] * 3 + [0.5] * 3)


def main() -> None:
    """Print and write the ratios."""
    args = arguments(__doc__, size=128, grid=32)
    rays_o, rays_d, ball = ball_scene(args.size, args.grid)
    results: dict[str, dict] = {}
    sides = {
        "peer": lambda: dense_march(rays_o, rays_d, ball, STEP),
        "numba": lambda: march(rays_o, rays_d, BOX, ball, STEP, backend="numba"),
    }
    samples = march(rays_o, rays_d, BOX, ball, STEP)
    n_samples = len(samples.t_starts)
    assert abs(int(dense_march(rays_o, rays_d, ball, STEP)[1].sum()) - n_samples) < 1e-4 * n_samples
    m = medians(sides, args.repeats)
    report(results, f"march, {args.size}^2, {n_samples} samples", m, {"ratio": m["peer"] / m["numba"]})

    g = torch.Generator().manual_seed(0)
    sigmas = (torch.rand(n_samples, generator=g) * 40).requires_grad_()
    colours = torch.rand(n_samples, 3, generator=g).requires_grad_()
    info = samples.packed_info
    t0, t1 = (padded(t, info) for t in (samples.t_starts, samples.t_ends))
    batched = [padded(v.detach(), info).requires_grad_() for v in (sigmas, colours)]

    def peer() -> torch.Tensor:
        weights, _, _ = render_weight_from_density(t0, t1, batched[0])
        colour = accumulate_along_rays(weights, batched[1])
        opacity, depth = accumulate_along_rays(weights), accumulate_along_rays(weights, 0.5 * (t0 + t1)[..., None])
        torch.autograd.grad(colour.square().sum() + opacity.sum() + depth.sum(), batched)
        return colour

    def ours() -> torch.Tensor:
        _, opacity, depth, colour = composite(sigmas, samples.t_starts, samples.t_ends, info, colours, backend="numba")
        torch.autograd.grad(colour.square().sum() + opacity.sum() + depth.sum(), (sigmas, colours))
        return colour

    torch.testing.assert_close(peer(), ours(), rtol=1e-4, atol=1e-4)
    m = medians({"peer": peer, "numba": ours}, args.repeats)
    report(results, f"composite, forward + backward, {args.size}^2", m, {"ratio": m["peer"] / m["numba"]})
    save(results, args.output)


if __name__ == "__main__":
    main()
