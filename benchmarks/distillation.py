"""Cost of VSD compared with SDS: CPU seconds of the bundled model's guidance, and of whole steps of the main recipe.

    python benchmarks/distillation.py --steps 20

The guidance alone computes loss and gradient of 4 views of 64 x 64, the variants taking turns; the whole steps are
those of the recipe's `cpu` profile, first one variant and then the other, each from the start.
"""

import tempfile
from pathlib import Path
from typing import Any

import compare
import torch
from train_step import Clock, seconds_per_step

from zero123s.config.load import load_config
from zero123s.guidance.zero123 import StableZero123Guidance
from zero123s.ops.cameras import orbit_cameras
from zero123s.run.plan import check_experiment
from zero123s.run.runner import Runner
from zero123s.structures import ReferenceView

REPOSITORY = Path(__file__).parents[1]
VARIANTS = ("sds", "vsd")


def guidance_loss(variant: str) -> Any:
    """Return a function that does the guidance's part of a step."""
    rgb = torch.rand(4, 64, 64, 3)
    view = ReferenceView(orbit_cameras(5.0, 0.0, height=64, width=64), rgb[:1], torch.ones(1, 64, 64, 1))
    guide = StableZero123Guidance(StableZero123Guidance.Config(variant=variant, guidance_scale=3.0), view)
    cameras = orbit_cameras(20.0, torch.tensor([0.0, 90.0, 180.0, 270.0]))
    generator, steps = torch.Generator().manual_seed(0), iter(range(10**6))

    def once() -> None:
        images = rgb.clone().requires_grad_()
        torch.autograd.grad(guide(images, cameras, next(steps), generator).loss, images)

    return once


def whole_step(variant: str, n_steps: int) -> float:
    """Return the median CPU seconds of a step of the recipe."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"system.guidance.variant={variant}", f"exp_root_dir={folder}", "threads=1", "trainer.val_check_interval=0",
            f"trainer.max_steps={n_steps}", "trainer.enable_progress_bar=false", "export_after_train=false",
            "data.random_camera.n_test_views=1", f"data.image_path={REPOSITORY}/load/images/hamburger_rgba.png",
        ]  # fmt: skip
        plan = check_experiment(load_config(REPOSITORY / "configs/stable-zero123.yaml", overrides, "cpu"))
        Runner(plan, Path(folder) / "run", None, run_callbacks=[clock]).run("train")
    return seconds_per_step(clock.times)


def main() -> None:
    """Print both rows."""
    args = compare.arguments(__doc__, steps=20)
    results: dict[str, dict] = {}
    alone = compare.medians({variant: guidance_loss(variant) for variant in VARIANTS}, args.repeats)
    compare.report(results, "guidance alone", alone, {"vsd / sds": alone["vsd"] / alone["sds"]})
    whole = {variant: whole_step(variant, args.steps) for variant in VARIANTS}
    compare.report(results, "whole step", whole, {"vsd / sds": whole["vsd"] / whole["sds"]})
    compare.save(results, args.output)


if __name__ == "__main__":
    main()
