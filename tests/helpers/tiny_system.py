"""A system of one parameter, to test the shell of a run without the price of a radiance field."""

import os
import random
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from zero123s.commands.launch import main
from zero123s.config.options import option
from zero123s.data.base import DATA, BaseData
from zero123s.system.base import SYSTEMS, BaseSystem


@DATA.register("tiny-numbers")
class Numbers(BaseData):
    """Offers nothing but a batch per step."""

    def prepare(self) -> None:
        """Nothing to read."""

    def batch_at(self, step: int, micro_step: int = 0, rank: int = 0) -> torch.Tensor:
        """The step and the micro step."""
        return torch.tensor([float(step), float(micro_step)])


@SYSTEMS.register("tiny-system")
class TinySystem(BaseSystem):
    """Walks its parameter about by random numbers of every global generator; has no images, scores or files."""

    @dataclass
    class Config(BaseSystem.Config):
        """Settings of `tiny-system`."""

        signal_at: list[int] = option([])
        """Steps during which the process gets SIGINT, once for each time the step is named."""
        signal_name: str = option("SIGINT", choices=("SIGINT", "SIGTERM"))
        """Which signal."""
        seconds_per_step: float = option(0.0, low=0.0)
        """A step takes at least this long."""
        fail_at: int = -1
        """Step at which training raises."""
        size: int = option(1, low=1)
        """Length of the parameter."""
        nan_at: list[int] = option([])
        """Steps in which a number is not finite."""
        nan_in: str = option("loss", choices=("loss", "gradient", "weight"))
        """Which number."""
        is_empty: bool = False
        """Report an empty occupancy grid."""
        mesh_silhouette_iou: float = 1.0
        """Report this of the exported mesh."""

    def __init__(self, cfg, data, seed=0):
        super().__init__(cfg, data, seed)
        self.walker = torch.nn.Parameter(torch.zeros(cfg.size))
        self.steps = []
        self.halved = 1.0

    def training_step(self, batch, batch_idx):
        step, micro_step = (int(v) for v in batch)
        self.steps.append((step, micro_step))
        if step == self.cfg.fail_at:
            raise ArithmeticError("the walker fell over")
        if micro_step == 0:
            for _ in range(self.cfg.signal_at.count(step)):
                os.kill(os.getpid(), getattr(signal, self.cfg.signal_name))
        time.sleep(self.cfg.seconds_per_step)
        push = random.random() + float(np.random.rand()) + float(torch.rand(())) + 0.1 * micro_step
        loss = self.halved * (self.walker - push).square().sum()
        if step in self.cfg.nan_at:
            if self.cfg.nan_in == "weight":
                with torch.no_grad():
                    self.walker.fill_(float("nan"))
            elif self.cfg.nan_in == "gradient":
                loss = loss + _FiniteWithoutGradient.apply(self.walker)
            else:
                loss = loss * float("inf")
        occupancy = torch.zeros(2, 2, 2, dtype=torch.bool) if self.cfg.is_empty else None
        self.diagnostics = replace(self.diagnostics, losses={"walk": loss.detach()}, occupancy=occupancy)
        self.log("loss/total", loss.detach())
        return loss

    def export(self, out_dir, progress=None):
        self.export_stats = {"silhouette_iou": self.cfg.mesh_silhouette_iou}
        return {}

    def halve_loss(self, name, times=1):
        self.halved *= 0.5**times
        return True

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class _FiniteWithoutGradient(torch.autograd.Function):
    """Zero, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x):
        return torch.zeros(())

    @staticmethod
    def backward(ctx, grad):
        return torch.full((1,), float("nan"))


CONFIG = """
name: tiny
data_type: tiny-numbers
system_type: tiny-system
use_timestamp: false
threads: 1
trainer: {max_steps: 4, val_check_interval: 0, enable_progress_bar: false}
checkpoint: {every_n_train_steps: 2}
"""


def launch(folder: Path, *overrides: str, out: Path | None = None) -> int:
    """Train the tiny system through the command line, its config written into `folder`; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(CONFIG)
    return main(["--config", str(folder / "tiny.yaml"), "--train", f"exp_root_dir={out or folder}", *overrides])
