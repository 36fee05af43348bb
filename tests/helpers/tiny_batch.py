"""A system that waits for a given time on one image, to test batches without the cost of a field."""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zero123s.config.options import option
from zero123s.data.base import DATA, BaseData
from zero123s.diffusion.shared import shared
from zero123s.images.io import read_image
from zero123s.system.base import SYSTEMS, BaseSystem

LOADS = "network-loads"
"""Environment variable: a file that gets a line, the process id, for every network that is loaded."""


@DATA.register("tiny-picture")
class ImageLike(BaseData):
    """One number: the mean of an image."""

    @dataclass
    class Config(BaseData.Config):
        """Settings of `tiny-picture`."""

        image_path: str = "???"
        """The image."""
        default_elevation_deg: float = 0.0
        """Counts a little."""

    def prepare(self):
        self.mean = float(read_image(self.cfg.image_path).rgba.mean())

    def batch_at(self, step, micro_step=0, rank=0):
        return torch.tensor(self.mean + 1e-3 * self.cfg.default_elevation_deg)


@SYSTEMS.register("tiny-batch-system")
class TinyBatchSystem(BaseSystem):
    """Walks its parameter towards the image's mean by random steps, and exports where it is as text."""

    @dataclass
    class Config(BaseSystem.Config):
        """Settings of `tiny-batch-system`."""

        seconds_per_step: float = option(0.0, low=0.0)
        """A step takes at least this long."""
        fail_at: int = -1
        """Step at which training raises, once: the second attempt goes through."""
        kill_above: float = 2.0
        """An image whose mean is above this kills its process in step 5, in the first attempt."""

    def __init__(self, cfg, data, seed=0):
        super().__init__(cfg, data, seed)
        self.walker = torch.nn.Parameter(torch.zeros(1))

    def load_networks(self, device):
        shared("tiny", self._load)

    def _load(self):
        with open(os.environ[LOADS], "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        return object()

    def _first_time(self, what):
        marker = Path(self.trainer.loggers[0].save_dir) / what
        if marker.exists():
            return False
        marker.touch()
        return True

    def training_step(self, batch, batch_idx):
        time.sleep(self.cfg.seconds_per_step)
        if self.global_step == self.cfg.fail_at and self._first_time("failed"):
            raise ArithmeticError("the walker fell over")
        if self.global_step == 5 and float(batch) > self.cfg.kill_above and self._first_time("killed"):
            os.kill(os.getpid(), 9)
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        loss = (self.walker - batch - 0.1 * noise).square().sum()
        self.log("loss/total", loss.detach())
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def preview(self, out_dir, step):
        return {"distance": abs(float(self.walker) - float(self.data_source.batch_at(0)))}

    def export(self, out_dir, progress=None):
        out_dir.mkdir(parents=True, exist_ok=True)
        path = out_dir / "walker.txt"
        path.write_text(f"{float(self.walker):.9f}", encoding="utf-8")
        return {"txt": path}
