"""What a training step costs besides its networks, and what cached latents save.

    python benchmarks/train_step.py bundled DATA      (DATA: of `zero123s render`) Lightning, data, averages, logs against
                                                      a bare torch loop over the same networks and batches
    python benchmarks/train_step.py cached            full-size networks with random weights, one pair of 256 x 256:
                                                      the step from images against the step from cached latents
    python benchmarks/train_step.py cached --lora     the same with LoRA adapters of rank 4

Process CPU seconds on one thread.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import compare
import torch

from zero123s.callbacks.run_callback import RunCallback
from zero123s.config.load import load_config
from zero123s.data.base import BaseData
from zero123s.diffusion.model import Zero123Model, build_model
from zero123s.diffusion.model_config import ModelConfig
from zero123s.run.plan import check_experiment
from zero123s.run.runner import Runner
from zero123s.structures import PosedViews
from zero123s.system.finetune import Zero123FinetuneSystem

REPOSITORY = Path(__file__).parents[1]
SKIPPED = 4
"""First steps: kernels are loaded, caches filled."""


class Clock(RunCallback):
    """CPU time at the end of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        """Look at the clock."""
        self.times.append(time.process_time())


def seconds_per_step(times: list[float]) -> float:
    """Return the median step."""
    steps = [b - a for a, b in pairwise(times)]
    return statistics.median(steps[SKIPPED:])


def bundled(data: Path, n_steps: int) -> None:
    """Print a step of the bundled model's training through the command line's runner, and through a bare loop."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"data.root={data}", f"exp_root_dir={folder}", "system.model=''", "threads=1", "data.batch_size=6",
            "data.n_targets=4", f"system.checkpoint={REPOSITORY}/load/zero123/small_zero123.safetensors",
            f"trainer.max_steps={n_steps}", "trainer.val_check_interval=0", "trainer.enable_progress_bar=false",
            "system.n_validation=1", "system.n_samples=1", "system.sample_steps=1",
        ]  # fmt: skip
        plan = check_experiment(load_config(REPOSITORY / "configs/train-small-zero123.yaml", overrides))
        clock = Clock()
        runner = Runner(plan, Path(folder) / "run", None, run_callbacks=[clock])
        runner.run("train")
    system = runner.system
    batches = [system.data_source.batch_at(step) for step in range(n_steps)]
    learned = [p for p in system.parameters() if p.requires_grad]
    optimizer, times = torch.optim.AdamW(learned, lr=1e-4, foreach=True), []
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        torch.stack(list(system.losses(batch, step).values())).sum().backward()  # type: ignore[operator]
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        times.append(time.process_time())
    ours, bare = seconds_per_step(clock.times), seconds_per_step(times)
    print(f"a step of 6 objects x 4 targets: {ours:.2f} s, bare loop {bare:.2f} s, throughput {bare / ours:.2f} of it")


class FullSize(Zero123FinetuneSystem):
    """The fine-tuning system around full-size networks with random weights."""

    @staticmethod
    def _build(cfg: Any, seed: int) -> Zero123Model:
        torch.manual_seed(seed)
        return build_model(ModelConfig())


def cached(lora: bool, repeats: int) -> None:
    """Print forward and backward pass of one pair from images and from latents; the optimiser is left out of both."""
    cfg = FullSize.Config(checkpoint="random", lora_rank=4 if lora else 0, gradient_checkpointing=False)
    system = FullSize(cfg, BaseData(BaseData.Config(), 0))
    angle = torch.tensor([[10.0, 30.0]])
    posed_views = PosedViews(torch.rand(1, 2, 256, 256, 4), angle, 3 * angle, torch.full((1, 2), 3.8))
    with torch.no_grad():
        rgb = posed_views.on_white()
        latents = system.model.encode_image(rgb[0])[None]
        kept = replace(posed_views, latents=latents, embedding=system.model.embed_image(rgb[:, 0]))

    def step(views: PosedViews) -> None:
        system.zero_grad()
        torch.stack(list(system.losses(views, 0).values())).sum().backward()

    seconds = compare.medians({"images": lambda: step(posed_views), "latents": lambda: step(kept)}, repeats, False)
    ratio = seconds["images"] / seconds["latents"]
    print(f"from images {seconds['images']:.1f} s, from latents {seconds['latents']:.1f} s, ratio {ratio:.2f}")


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    first = commands.add_parser("bundled")
    first.add_argument("data", type=Path)
    first.add_argument("--steps", type=int, default=20)
    second = commands.add_parser("cached")
    second.add_argument("--lora", action="store_true")
    second.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "bundled":
        bundled(args.data, args.steps)
    else:
        cached(args.lora, args.repeats)


if __name__ == "__main__":
    main()
