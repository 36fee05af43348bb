"""GPU work of one training step: launches, bytes, waits of the host; counted without a GPU, by tests/pretend.

    python benchmarks/gpu/step_counts.py            # the cpu profile of the main recipe
    python benchmarks/gpu/step_counts.py --triton
    python benchmarks/gpu/step_counts.py --profile none data.random_camera.batch_size=1
    python benchmarks/gpu/step_counts.py --config dreamgaussian.yaml --profile none

Needs g++ and a torch without CUDA. A launch is an ATen call that writes memory, a wait is a read of a number, a result
whose size depends on numbers, or a copy that is not `non_blocking`. The guidance is left out, also of its backward pass:
a stand-in takes its place whose loss is that of a constant gradient. Field operations run in plain torch, the fallback,
or with --triton as Triton's kernels, the default on CUDA: interpreted, at tiny images, each start counted as a launch.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from pretend import hooks  # noqa: E402

hooks.load()
os.environ["TRITON_INTERPRET"] = "1"  # is read when a kernel's module is imported; changes nothing for plain torch

import pytorch_lightning as pl  # noqa: E402
from pretend.counts import Counts  # noqa: E402
from pretend.cuda import pretend_cuda  # noqa: E402
from pretend.triton_kernels import interpreted_triton  # noqa: E402
from torch import Generator, Tensor  # noqa: E402

from zero123s.callbacks.run_callback import RunCallback  # noqa: E402
from zero123s.guidance import GUIDANCES, BaseGuidance  # noqa: E402
from zero123s.run.plan import plan_run  # noqa: E402
from zero123s.run.runner import Runner  # noqa: E402
from zero123s.structures import Cameras, GuidanceOutput  # noqa: E402

WORDS = ["trainer.val_check_interval=0", "threads=1", "trainer.enable_progress_bar=false", "export_after_train=false"]
SMALL_IMAGES = [
    "data.height=6", "data.width=6", "data.random_camera.height=4", "data.random_camera.width=4",
    "data.resolution_milestones=[]", "data.random_camera.resolution_milestones=[]",
    "data.random_camera.batch_size=2",
]  # fmt: skip
"""Interpreted kernels take milliseconds per 128 points; other sizes by overrides."""


@GUIDANCES.register("no-guidance")
class NoGuidance(BaseGuidance):
    """Asks for nothing but brighter images, in three launches."""

    image_size = 64

    def __call__(self, comp_rgb: Tensor, cameras: Cameras, step: int, generator: Generator) -> GuidanceOutput:
        """Return a loss with a constant gradient."""
        return GuidanceOutput(
            loss=-comp_rgb.mean(), grad_norm=comp_rgb.new_ones(()), timesteps=comp_rgb.new_zeros(len(cameras))
        )

    def describe(self) -> dict[str, str | bool | None]:
        """Return nothing: there is no model."""
        return {}


class Counted(Exception):
    """The step has been counted."""


class CountStep(RunCallback):
    """Counts from the beginning of one step to that of the next, so that optimiser, logs and checks are in it."""

    def __init__(self, counts: Counts, step: int, kernels: contextlib.AbstractContextManager[None]) -> None:
        self.counts = counts
        self.step = step
        self.kernels = kernels

    def on_train_batch_start(self, trainer: pl.Trainer, *args: object) -> None:
        """Begin, or report and end the run."""
        if trainer.global_step == self.step - 1:
            self.kernels.__enter__()  # a step early: at their first use the networks' kernels are compared with plain torch
        elif trainer.global_step == self.step:
            self.counts.clear()
        elif trainer.global_step > self.step:
            self.kernels.__exit__(None, None, None)
            samples = {k: int(v) for k, v in trainer.callback_metrics.items() if k.startswith("samples")}
            print(f"step {self.step}, {samples}")
            self.counts.report(sys.stdout, top=40)
            raise Counted


def main() -> None:
    """Count step 3, in which the occupancy grid is not refreshed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="stable-zero123.yaml", help="recipe with a guidance, in configs/")
    parser.add_argument("--profile", default="cpu", help="overlay of the recipe, or none")
    parser.add_argument("--triton", action="store_true", help="with Triton's kernels, interpreted")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    config = REPOSITORY / "configs" / args.config
    with contextlib.ExitStack() as stack:
        counts = stack.enter_context(pretend_cuda())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        words = [*WORDS, "system.guidance_type=no-guidance", "system.guidance={}"]
        if args.triton:
            words += SMALL_IMAGES
            if "num_samples_per_ray" in config.read_text():
                words.append("system.renderer.num_samples_per_ray=16")
        words += args.overrides
        kernels = interpreted_triton() if args.triton else contextlib.nullcontext()
        _, plan = plan_run(config, words, args.profile)
        runner = Runner(plan, Path(folder) / "run", None, gpu="0", run_callbacks=[CountStep(counts, 3, kernels)])
        with contextlib.suppress(Counted):
            runner.run("train")


if __name__ == "__main__":
    main()
