"""Samples per ray over a run of the main recipe, counted on a CPU: what predict.py multiplies its seconds with.

    python benchmarks/gpu/samples_per_ray.py OUT [key=value ...]

The full recipe's 600 steps with the bundled model, at images of 64 pixels: how many samples a ray has does not depend
on the number of rays. Candidates are the samples in occupied cells; of many a GPU evaluates only those that light may reach;
samples are those that are opaque enough and not hidden, and are shaded. Prints means by hundred steps; all counts are in
OUT/samples.csv.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402

from zero123s.callbacks.run_callback import RunCallback  # noqa: E402
from zero123s.ops import compositing  # noqa: E402
from zero123s.ops.ray_marching import Samples, march  # noqa: E402
from zero123s.renderer import nerf_volume  # noqa: E402
from zero123s.run.plan import plan_run  # noqa: E402
from zero123s.run.runner import Runner  # noqa: E402

WORDS = [
    "data.height=64", "data.width=64", "data.random_camera.height=64", "data.random_camera.width=64",
    "data.resolution_milestones=[]", "data.random_camera.resolution_milestones=[]", "data.random_camera.batch_size=2",
    "data.random_camera.eval_height=128", "data.random_camera.eval_width=128", "data.random_camera.n_test_views=8",
]  # fmt: skip
EVERY = 5
"""Steps between counts."""


class CountSamples(RunCallback):
    """Counts rays, candidates and samples of every fifth training step."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int, int]] = []
        self.step = -1
        self.march_visible = nerf_volume.march_visible
        nerf_volume.march_visible = self.count

    def on_train_batch_start(self, trainer: pl.Trainer, *args: object) -> None:
        """Count this step, or not."""
        self.step = trainer.global_step if trainer.global_step % EVERY == 0 else -1

    def on_train_batch_end(self, *args: object) -> None:
        """Count no previews."""
        self.step = -1

    def count(
        self, rays_o: Any, rays_d: Any, aabb: Any, binaries: Any, step_size: float, *args: Any, **words: Any
    ) -> Any:
        """March as the renderer asked, and once more as a GPU does."""
        samples = self.march_visible(rays_o, rays_d, aabb, binaries, step_size, *args, **words)
        if self.step >= 0:
            candidates = march(rays_o, rays_d, aabb, binaries, step_size, jitter=words["jitter"])
            evaluated = count_evaluated(candidates, rays_o, rays_d, *args)
            self.rows.append((self.step, len(rays_o), len(candidates.t_starts), evaluated, len(samples.t_starts)))
        return samples


@torch.no_grad()
def count_evaluated(
    candidates: Samples, rays_o: Any, rays_d: Any, alphas_at: Any, alpha_thre: float, eps: float
) -> int:
    """Return how many candidates are evaluated where there are many."""
    counts = []

    def alphas(index: torch.Tensor) -> torch.Tensor:
        counts.append(len(index))
        return alphas_at(candidates.positions(rays_o, rays_d, index))

    with patch.object(compositing, "FRONT_TO_BACK", 0):
        compositing.visible_samples(alphas, candidates.ray_indices, candidates.packed_info, alpha_thre, eps)
    return sum(counts)


def main() -> None:
    """Run the recipe and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    counter = CountSamples()
    _, plan = plan_run(REPOSITORY / "configs/stable-zero123.yaml", [*WORDS, *args.overrides], "none")
    Runner(plan, args.out / "run", None, run_callbacks=[counter]).run("train")
    with open(args.out / "samples.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("step", "rays", "candidates", "evaluated", "samples"), *counter.rows])
    by_hundred: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for step, *counts in counter.rows:
        by_hundred[step // 100].append(tuple(counts))
    print("from step  candidates per ray  evaluated per ray  samples per ray")
    for hundred, rows in sorted(by_hundred.items()):
        rays, candidates, evaluated, samples = (sum(column) for column in zip(*rows, strict=True))
        print(f"{100 * hundred:9}  {candidates / rays:18.1f}  {evaluated / rays:17.1f}  {samples / rays:15.1f}")


if __name__ == "__main__":
    main()
