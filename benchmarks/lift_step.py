"""Rendering the pose lift's volume, kernel against torch, and its training step in half against full precision.

    python benchmarks/lift_step.py [--output lift_step.json]

16 generated objects, three views each, the bundled model and its lift's volumes of them (which are clear but for a
tenth); medians of process CPU seconds on one thread, forward and backward. `reference` is plain torch: sampled features in
memory, then batched products.
"""

import argparse
import tempfile
from pathlib import Path

import compare
import torch

from zero123s.data.rendered_views import RenderedViews
from zero123s.diffusion.checkpoint.load_zero123 import load_zero123
from zero123s.diffusion.lift import PoseLift
from zero123s.diffusion.model import Zero123Model
from zero123s.diffusion.training import lift_loss, pairwise_poses
from zero123s.ops.volume_sampling import composite_volume
from zero123s.scenes.dataset import RenderSettings, procedural_objects, render_dataset

WEIGHTS = Path(__file__).parents[1] / "load" / "zero123" / "small_zero123.safetensors"
OBJECTS, VIEWS = 16, 3


def step(lift: PoseLift, latents: torch.Tensor, poses: torch.Tensor, half: bool) -> None:
    """Compute the lift's own loss on random images, and its gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        rendered = lift.render(lift.volume(latents, poses[:, 0, 3]), poses)
        images = torch.rand(OBJECTS * VIEWS, 4, 64, 64)
        lift_loss(rendered.features[:, :3], rendered.opacity, images[:, :3], images[:, 3:]).backward()


def inputs(model: Zero123Model) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latents of the objects' first views and the poses of the others."""
    with tempfile.TemporaryDirectory() as folder:
        render_dataset(procedural_objects(9_100_000, OBJECTS + 1), folder, RenderSettings(views=8, size=64, seed=1))
        data = RenderedViews(RenderedViews.Config(folder, batch_size=OBJECTS, n_targets=VIEWS, held_out=1))
        data.prepare()
        views = data.batch_at(0)
    return model.encode_image(views.on_white()[:, 0]), pairwise_poses(model, views)


def main() -> None:
    """Print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load_zero123(WEIGHTS, dtype="fp32")
    lift = model.lift
    assert lift is not None
    latents, poses = inputs(model)
    lift.requires_grad_(True)
    results: dict[str, dict] = {}

    volume = lift.volume(latents, poses[:, 0, 3]).detach().requires_grad_()
    points = lift._points(poses.flatten(0, 1), 2 * lift.latent_size).reshape(OBJECTS, -1, lift.n_samples, 3)

    def render_volume(backend: str) -> None:
        composite_volume(volume, points, lift.medium, backend).square().mean().backward()

    m = compare.medians(
        {"reference": lambda: render_volume("reference"), "numba": lambda: render_volume("numba")}, args.repeats
    )
    compare.report(results, "render a volume", m, {"ratio": m["reference"] / m["numba"]})
    sides = {"fp32": lambda: step(lift, latents, poses, False), "bf16": lambda: step(lift, latents, poses, True)}
    m = compare.medians(sides, args.repeats)
    compare.report(results, "a step", m, {"ratio": m["fp32"] / m["bf16"]})
    compare.save(results, args.output)


if __name__ == "__main__":
    main()
