"""Fine-tuning in which one of two processes runs out of memory in step 1."""

from dataclasses import dataclass

import torch

from zero123s.system.base import SYSTEMS
from zero123s.system.finetune import Zero123FinetuneSystem


@SYSTEMS.register("short-finetune-system")
class ShortFinetuneSystem(Zero123FinetuneSystem):
    """Runs short once."""

    @dataclass
    class Config(Zero123FinetuneSystem.Config):
        """Settings of `short-finetune-system`."""

        short_rank: int = 1
        """Process that runs short."""

    def _losses(self, *args):
        if (self.global_rank, self.global_step) == (self.cfg.short_rank, 1):
            raise torch.cuda.OutOfMemoryError(f"CUDA out of memory in process {self.global_rank}")
        return super()._losses(*args)
