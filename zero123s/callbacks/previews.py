"""Renders and scores the current state at every validation interval."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Previews(pl.Callback):
    """Renders and scores the current state at every validation interval and logs the scores.

    Args:
        out_dir: the run folder.
        every: steps between previews; 0 = none.
    """

    def __init__(self, out_dir: Path, every: int) -> None:
        self.out_dir = out_dir
        self.every = every
        self._last = -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Render the preview of a step, once, unless the run is about to stop."""
        step = trainer.global_step
        if self.every and step % self.every == 0 and step != self._last and not trainer.should_stop:
            self._last = step
            if not trainer.is_global_zero:
                return  # the others wait for it at the next step's gradients
            scores = {f"preview/{name}": value for name, value in pl_module.preview(self.out_dir, step).items()}
            # For monitors; what Lightning itself logs, it repeats at every later step.
            pl_module.log_dict(scores, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics(scores, step)
