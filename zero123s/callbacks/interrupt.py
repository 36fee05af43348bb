"""Ctrl-C once: finish the step, write a checkpoint, print how to resume. Twice: exit at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl

from zero123s.runtime.processes import is_main_process

EXIT_CODE = 130
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1")
    if hasattr(signal, name) and (name != "SIGUSR1" or "SLURM_JOB_ID" in os.environ)
)
"""SLURM sends SIGTERM before it reclaims a node, or SIGUSR1 if the job requests it (--signal=USR1@60)."""


class GracefulInterrupt(pl.Callback):
    """Stops training cleanly after the current step at the first stop signal; exits the process at the second."""

    def __init__(self) -> None:
        self.interrupted = False
        """Whether training stops, or was stopped; the same in all processes."""
        self._asked = False
        """Whether this process received a stop signal; never reset."""
        self._training = False
        self._step = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals for the duration of the block; outside of training they raise KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may; a web server stops its runs in other ways
            return
        previous = {signum: signal.signal(signum, self._on_signal) for signum in STOP_SIGNALS}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: Any) -> None:
        if self._asked:
            print("\nQuitting at once.", file=sys.stderr, flush=True)
            os._exit(EXIT_CODE)  # Lightning would begin another graceful shutdown
        self._asked = True
        if not self._training:
            self.interrupted = True
            raise KeyboardInterrupt
        if is_main_process():
            print("\nStopping after this step; press Ctrl-C again to quit at once.", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Request the same stop as a signal, from within the process."""
        self._asked = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a signal takes effect at the end of a step; Lightning's own handlers are disabled."""
        self._training = True
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                signal.signal(signum, self._on_signal)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record the step at which the batch began."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stop between two steps, never between accumulated batches, whose gradients would be lost.

        A signal may reach one of several processes; all stop at the same step, else the others would wait for it.
        """
        if trainer.global_step > self._step:
            self._agree(trainer)
            trainer.should_stop = trainer.should_stop or self.interrupted

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise KeyboardInterrupt again: rendering and exporting can be repeated from the checkpoint."""
        self._training = False
        self._agree(trainer)  # a signal may have come since the last step agreed

    def _agree(self, trainer: pl.Trainer) -> None:
        # While this process waits for the others a signal may come: it counts at the next step.
        self.interrupted = trainer.strategy.reduce_boolean_decision(self._asked, all=False)
