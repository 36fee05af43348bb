"""Ctrl-C once: finish the step, write a checkpoint, say how to go on. Twice: quit."""

import signal
import sys
from typing import Any

import pytorch_lightning as pl


class GracefulInterrupt(pl.Callback):
    """Turns SIGINT and SIGTERM into a clean stop after the running step."""

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals."""

        def stop(signum: int, frame: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            trainer.should_stop = True
            trainer.limit_val_batches = 0
            print("\nStopping after this step; press Ctrl-C again to quit at once.", file=sys.stderr, flush=True)

        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, stop)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
