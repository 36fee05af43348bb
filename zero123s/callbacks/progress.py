"""A progress bar with step, loss terms, speed and remaining time."""

from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm


class StepProgress(pl.Callback):
    """One line: steps done of all, steps per second, time left, and the losses of the last step."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar where the run stands."""
        self.bar = tqdm(total=trainer.max_steps, initial=trainer.global_step, unit="step", dynamic_ncols=True)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Move the bar to the global step."""
        terms = {
            k.split("/")[-1]: f"{float(v):.3g}" for k, v in trainer.callback_metrics.items() if k.startswith("loss/")
        }
        self.bar.set_postfix(terms, refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()
