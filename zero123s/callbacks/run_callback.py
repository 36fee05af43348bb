"""Callbacks for a program that starts a run: progress step by step, and a way to stop it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from zero123s.callbacks.interrupt import GracefulInterrupt

SECONDS_BETWEEN_REPORTS = 0.25


@dataclass(frozen=True)
class Progress:
    """The state of a run."""

    stage: str
    """"train", then "validate", "test" and "export"."""
    step: int
    """Optimiser steps done."""
    max_steps: int
    run_dir: Path
    losses: dict[str, float] = field(default_factory=dict)
    """Loss terms of the last step by name, "total" first; empty outside of training."""
    seconds: float = 0.0
    """Since training began in this process."""
    seconds_left: float | None = None
    """Remaining seconds of training at the average pace; None before the first step and outside of training."""

    def as_json(self) -> dict[str, Any]:
        """Return stage, step, max_steps, remaining seconds and losses, rounded, as one line of JSON."""
        left = None if self.seconds_left is None else round(self.seconds_left, 1)
        losses = {name: float(f"{value:.6g}") for name, value in self.losses.items()}
        return {"stage": self.stage, "step": self.step, "max_steps": self.max_steps, "left": left, "losses": losses}


def throttled(write: Callable[[dict[str, Any]], object]) -> Callable[[Progress], None]:
    """Return a callback that passes on progress as JSON a few times a second, at new stages and at the last step."""
    last, stage = 0.0, ""

    def report(progress: Progress) -> None:
        nonlocal last, stage
        now = time.monotonic()
        if progress.stage == stage and now - last < SECONDS_BETWEEN_REPORTS and progress.step < progress.max_steps:
            return
        last, stage = now, progress.stage
        write(progress.as_json())

    return report


class RunCallback(pl.Callback):
    """A Lightning callback that is also called at the stages around training."""

    def on_stage(self, stage: str) -> None:
        """Called when a stage begins: "train", "validate", "test" or "export"."""


class StepReport(RunCallback):
    """Calls a function after every step and at the beginning of every later stage.

    Args:
        report: gets a `Progress`; returning False stops the run after this step, with a checkpoint.
        run_dir: what to say as run folder.
    """

    def __init__(self, report: Callable[[Progress], Any], run_dir: Path) -> None:
        self.report = report
        self.run_dir = run_dir
        self.last = Progress("train", 0, 0, run_dir)
        self._started = time.monotonic()
        self._first_step = 0

    def on_stage(self, stage: str) -> None:
        """Report a stage after training; it cannot be stopped any more."""
        if stage != "train":
            seconds = time.monotonic() - self._started
            self.report(Progress(stage, self.last.step, self.last.max_steps, self.run_dir, seconds=seconds))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._first_step = trainer.global_step
        self.last = Progress("train", trainer.global_step, trainer.max_steps, self.run_dir)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Report a finished step, not the accumulated batches within it."""
        step = trainer.global_step
        if step == self.last.step:
            return
        seconds = time.monotonic() - self._started
        left = seconds / (step - self._first_step) * (trainer.max_steps - step)
        logged = {
            k.removeprefix("loss/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("loss/")
        }
        losses = {k: logged[k] for k in sorted(logged, key=lambda k: (k != "total", k))}
        self.last = Progress("train", step, trainer.max_steps, self.run_dir, losses, seconds, left)
        if self.report(self.last) is False:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, GracefulInterrupt):
                    callback.stop()
            trainer.should_stop = True
