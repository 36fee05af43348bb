"""A progress bar with step, loss terms, speed and remaining time."""

import time
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

SECONDS_BETWEEN_LOSSES = 0.5
"""Reading a loss waits for the device, so it is not done at every step."""


class StepProgress(pl.Callback):
    """One line: steps done of all, time left, steps per second, and the losses of a recent step."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar where the run stands."""
        self.bar = tqdm(total=trainer.max_steps, initial=trainer.global_step, unit="step", dynamic_ncols=True)
        self._shown = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Move the bar to the global step."""
        last = trainer.global_step >= trainer.max_steps
        if last or time.monotonic() - self._shown > SECONDS_BETWEEN_LOSSES:
            self._shown = time.monotonic()
            self.bar.set_postfix_str(loss_words(trainer.callback_metrics), refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the message gets a line of its own."""
        if hasattr(self, "bar"):
            self.bar.close()


def loss_words(metrics: Any) -> str:
    """Return "total=1.2 reference/rgb=0.03" for the logged losses, the sum first."""
    terms = {k.removeprefix("loss/"): float(v) for k, v in metrics.items() if k.startswith("loss/")}
    order = sorted(terms, key=lambda name: (name != "total", name))
    return " ".join(f"{name}={terms[name]:.3g}" for name in order)
