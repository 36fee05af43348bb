"""Fine-tuning in which one of two processes runs out of memory: in a forward pass, in a backward pass, as told."""

from dataclasses import dataclass

import torch

from zero123s.config.options import option
from zero123s.system.base import SYSTEMS
from zero123s.system.finetune import Zero123FinetuneSystem


@SYSTEMS.register("short-finetune-system")
class ShortFinetuneSystem(Zero123FinetuneSystem):
    """Runs short once for each step named."""

    @dataclass
    class Config(Zero123FinetuneSystem.Config):
        """Settings of `short-finetune-system`."""

        short_rank: int = 1
        """Process that runs short."""
        forward_at: list[int] = option([])
        """Steps whose forward pass fails."""
        backward_at: list[int] = option([])
        """Steps whose backward pass fails, when it has added half of the gradients."""

        always_enough: bool = True
        """Find enough memory also when nothing can be done in parts any more."""

    def __init__(self, cfg, data, seed=0):
        super().__init__(cfg, data, seed)
        self.to_come = {(step, where) for where in ("forward", "backward") for step in getattr(cfg, f"{where}_at")}
        learned = [p for p in self.parameters() if p.requires_grad]
        learned[len(learned) // 2].register_hook(lambda grad: self._run_short("backward"))

    def back_off(self):
        return super().back_off() or ("nothing more" if self.cfg.always_enough else None)

    def _losses(self, *args):
        self._run_short("forward")
        return super()._losses(*args)

    def _run_short(self, where):
        key = (self.global_step, where)
        if self.global_rank == self.cfg.short_rank and key in self.to_come:
            self.to_come.remove(key)
            raise torch.cuda.OutOfMemoryError(f"CUDA out of memory in process {self.global_rank}")
