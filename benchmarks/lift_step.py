"""The pose lift's looks at a volume by the kernel against torch, and its training step in half against full precision.

    python benchmarks/lift_step.py [--output lift_step.json]

16 objects, three views each, the bundled model's sizes; medians of process CPU seconds on one thread, forward and
backward. `grid_sample` is the plain-torch reference: sampled features in memory, then batched products.
"""

import argparse
from pathlib import Path

import compare
import torch

from zero123s.diffusion.checkpoint import load_zero123
from zero123s.diffusion.lift import PoseLift
from zero123s.diffusion.training import lift_loss
from zero123s.ops.volume_sampling import composite_volume

WEIGHTS = Path(__file__).parents[1] / "load" / "zero123" / "small_zero123.safetensors"
OBJECTS, VIEWS = 16, 3


def step(lift: PoseLift, latents: torch.Tensor, poses: torch.Tensor, half: bool) -> None:
    """Compute the lift's own loss on random pictures, and its gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        seen = lift.look(lift.volume(latents, poses[:, 0, 3]), poses)
        pictures = torch.rand(OBJECTS * VIEWS, 4, 64, 64)
        lift_loss(seen.features[:, :3], seen.opacity, pictures[:, :3], pictures[:, 3:]).backward()


def main() -> None:
    """Print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lift = load_zero123(WEIGHTS, dtype="fp32").lift
    assert lift is not None
    lift.requires_grad_(True)
    latents, poses = torch.randn(OBJECTS, 4, 16, 16), torch.randn(OBJECTS, VIEWS, 4) * 0.3
    poses[..., 3] = poses[:, :1, 3] + 1.4
    results: dict[str, dict] = {}

    volume = lift.volume(latents, poses[:, 0, 3]).detach().requires_grad_()
    points = lift._points(poses.flatten(0, 1), 2 * lift.latent_size).reshape(OBJECTS, -1, lift.n_samples, 3)

    def look(backend: str) -> None:
        composite_volume(volume, points, lift.medium, backend).square().mean().backward()

    m = compare.medians({"reference": lambda: look("reference"), "numba": lambda: look("numba")}, args.repeats)
    compare.report(results, "look at a volume", m, {"ratio": m["reference"] / m["numba"]})
    sides = {"fp32": lambda: step(lift, latents, poses, False), "bf16": lambda: step(lift, latents, poses, True)}
    m = compare.medians(sides, args.repeats)
    compare.report(results, "a step", m, {"ratio": m["fp32"] / m["bf16"]})
    compare.save(results, args.output)


if __name__ == "__main__":
    main()
