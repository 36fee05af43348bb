"""A training step of configs/stable-zero123.yaml's cpu profile without its guidance, in this source tree and in another.

Run: python benchmarks/field_step.py --other PATH [--checkpoint outputs/.../last.ckpt] [key=value ...]
Both passes, all losses, backward and Adam; a mean squared distance to grey takes the place of the guidance. Child
processes of one thread take turns, and each continues from the same checkpoint with the same seeds. Printed: CPU
milliseconds of a step, as the mean over the steps of each step's minimum over the repeats (steps differ: every eighth
refreshes the occupancy grid), whose ratios are taken, and as minimum and median over all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
SETTINGS = ["data.resolution_milestones=[60]", "system.loss.lambda_rgb=[20,500.0,1000.0,80]", "threads=1"]
"""Given to both sides: today's values, so that a tree with other ones takes the same steps."""
WARM_UP = 3
"""Steps before those that are counted."""


def build(words: list[str]) -> Any:
    """Return the system of the tree that comes first on Python's path, with a loss on images as its guidance."""
    import torch

    try:
        from zero123s.run.plan import plan_run
        from zero123s.run.runner import build_system
    except ModuleNotFoundError:  # before the package was divided
        from zero123s.cli import plan_run  # type: ignore[import-not-found,no-redef]
        from zero123s.session import build_system  # type: ignore[import-not-found,no-redef]
    from zero123s.structures import GuidanceOutput

    class GreyImages:
        """A guidance that wants every pixel grey."""

        image_size = 64
        n_parts = 1

        def __call__(self, image, cameras, step, generator):
            loss = 1e-3 * (image - 0.5).square().sum()
            return GuidanceOutput(loss=loss, grad_norm=loss.detach(), timesteps=torch.zeros(len(image)))

    torch.set_num_threads(1)
    _, plan = plan_run("configs/stable-zero123.yaml", [*SETTINGS, *words], "cpu")
    with tempfile.TemporaryDirectory() as folder:
        system = build_system(plan, Path(folder))
    system._guidance.append(GreyImages())  # type: ignore[arg-type]
    return system.train()


def run(system: Any, first: int, n_steps: int) -> tuple[list[float], list[float]]:
    """Return the CPU milliseconds and the numbers of samples of each step."""
    from zero123s.system.optimizers import build_optimizer

    optimizer = build_optimizer(system.cfg.optimizer, system, fused=True)
    at, samples, milliseconds = [first], [], []

    class Stepped(type(system)):
        """The system without a trainer."""

        global_step = property(lambda self: at[0])
        global_rank = 0

        def optimizers(self, use_pl_optimizer=True):
            return optimizer

        def log_numbers(self, numbers):
            samples.append(sum(float(v) for k, v in numbers.items() if k.startswith("samples/")))

        def log(self, name, value, **_):
            if name.startswith("samples/"):
                samples.append(float(value))

    system.__class__ = Stepped
    for step in range(first, first + n_steps):
        at[0] = step
        start = time.process_time()
        batch = system.data_source.batch_at(step, 0, 0)
        system.on_train_batch_start(batch, step)
        optimizer.zero_grad()
        system.training_step(batch, step).backward()
        optimizer.step()
        milliseconds.append(1e3 * (time.process_time() - start))
    return milliseconds, samples


def child(checkpoint: Path, n_steps: int, words: list[str]) -> None:
    """Print the times of the steps after a checkpoint, and the samples of a step; runs in the tree's own process."""
    import torch

    system = build(words)
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    system.load_state_dict(state["state_dict"])
    times, samples = run(system, state["global_step"], WARM_UP + n_steps)
    print(json.dumps({"ms": times[WARM_UP:], "samples": sum(samples) / len(times)}))


def train(checkpoint: Path) -> None:
    """Write a checkpoint after the first 20 steps."""
    import torch

    system = build([])
    run(system, 0, 20)
    torch.save({"state_dict": system.state_dict(), "global_step": 20}, checkpoint)


def in_tree(tree: Path, *words: object) -> str:
    """Return what this script prints as a child process that imports the package from `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Print and write times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="checkout of the other tree")
    parser.add_argument("--checkpoint", type=Path, help="of a run of the cpu profile; default: 20 steps trained first")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args, words = parser.parse_known_args()
    sides: dict[str, tuple[Path, list[str]]] = {"other": (args.other.resolve(), [])}
    for every in (1, 2):
        sides[f"this, normals_every={every}"] = (HERE, [f"system.freq.normals_every={every}"])
    found: dict[str, list[dict]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint.resolve() if args.checkpoint else Path(folder) / "start.ckpt"
        if not args.checkpoint:
            in_tree(HERE, "--train", checkpoint)
        for repeat in range(1, args.repeats + 1):
            for name, (tree, extra) in sides.items():
                printed = in_tree(tree, "--child", checkpoint, args.steps, *extra, *words)
                found[name].append(json.loads(printed.splitlines()[-1]))
            print(f"after {repeat} repeats:")
            means = report(found)
            if args.output:
                args.output.write_text(json.dumps({"rows": found, "mean_of_minima_ms": means}, indent=2))


def report(found: dict[str, list[dict]]) -> dict[str, float]:
    """Print times and ratios to the other tree; returns each side's mean over the steps of the minima."""
    means: dict[str, float] = {}
    for name, repeats in found.items():
        times = [repeat["ms"] for repeat in repeats]
        pooled = [ms for repeat in times for ms in repeat]
        means[name] = statistics.mean(map(min, zip(*times, strict=True)))
        print(
            f"  {name}: {means[name]:.0f} ms a step (minimum {min(pooled):.0f}, median {statistics.median(pooled):.0f}), "
            f"{repeats[0]['samples']:.0f} samples; the other takes {means['other'] / means[name]:.2f} times as long",
            flush=True,
        )
    return means


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    elif sys.argv[1:2] == ["--train"]:
        train(Path(sys.argv[2]))
    else:
        main()
