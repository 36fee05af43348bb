"""Progress bars: for training steps, with loss terms and remaining time, and for the stages of an export."""

import shutil
import sys
import time
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

SECONDS_BETWEEN_LOSSES = 0.5
"""Reading a loss waits for the device, so it is not done at every step."""
SECONDS_BETWEEN_LINES = 30.0
"""Where the output is a file or a pipe."""
WIDTH_OF_BAR = 60
"""Columns reserved for the bar itself."""


class StepProgress(pl.Callback):
    """One line: steps done and in total, remaining time, steps per second, and the losses of a recent step.

    On a pipe or in a log file a new line now and then, instead of one that redraws itself.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar at the current step."""
        self.watched = sys.stderr.isatty()
        every = {} if self.watched else {"mininterval": SECONDS_BETWEEN_LINES, "miniters": 1}
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            dynamic_ncols=True,
            file=sys.stderr if self.watched else _Lines(),
            **every,
        )
        self._shown = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Move the bar to the global step."""
        last = trainer.global_step >= trainer.max_steps
        if last or time.monotonic() - self._shown > SECONDS_BETWEEN_LOSSES:
            self._shown = time.monotonic()
            width = shutil.get_terminal_size().columns - WIDTH_OF_BAR if self.watched else 1000
            self.bar.set_postfix_str(format_losses(trainer.callback_metrics, width), refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error message starts on its own line."""
        if hasattr(self, "bar"):
            self.bar.close()


class StageProgress:
    """A bar for work in stages, called with (name of the stage, completed share in [0, 1]).

    On a pipe or in a log file one line per stage; the details in brackets appear on a terminal only.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.watched = sys.stderr.isatty()
        layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
        self.bar = tqdm(total=1.0, bar_format=layout, dynamic_ncols=True) if self.watched else None
        self._stage = ""

    def __call__(self, stage: str, share: float) -> None:
        if self.bar is not None:
            self.bar.set_description_str(f"{self.title}: {stage}", refresh=False)
            self.bar.n = share
            self.bar.refresh()
            return
        name = stage.split(" (", maxsplit=1)[0]
        if name != self._stage:
            self._stage = name
            print(f"{self.title}: {name}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class _Lines:
    """Writes each update of tqdm as a line of its own to stderr."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def format_losses(metrics: Any, width: int = 1000) -> str:
    """Format the logged losses as "total=1.2 sds=31 rgb=0.03", terms of a single pass first, as far as they fit.

    A term of both passes says which: "novel/opaque=0.1 reference/opaque=0.1".
    """
    terms = {k.removeprefix("loss/"): float(v) for k, v in metrics.items() if k.startswith("loss/")}
    short = [name.rsplit("/", 1)[-1] for name in terms]
    labels = {name: last if short.count(last) == 1 else name for name, last in zip(terms, short, strict=True)}
    line = ""
    for name in sorted(terms, key=lambda n: (n != "total", labels[n] == n, not n.startswith("novel"), n)):
        word = f"{' ' if line else ''}{labels[name]}={terms[name]:.3g}"
        if line and len(line) + len(word) > width:
            break
        line += word
    return line
