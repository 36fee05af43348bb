"""Training steps that run out of memory, done again with less of it: no gradient is lost, and none counts twice."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from zero123s.errors import OutOfMemoryError
from zero123s.ops.memory import free_cached_memory, is_out_of_memory

logger = logging.getLogger(__name__)


@dataclass
class _Pending:
    """A batch between its forward and its backward pass."""

    loss: list[Tensor]
    """The loss with its graph; emptied by the backward pass, so that a failed one frees what the graph holds."""
    cut: Tensor
    """The same number without a graph, which is what the trainer scales and gives back."""
    redo: Callable[[], Any]
    """The forward pass again."""


class ShortMemoryModule(pl.LightningModule):
    """A LightningModule whose batches are done again in smaller parts where memory runs out.

    A forward pass that fails has changed nothing. A backward pass that fails has added to `.grad` the whole gradient of
    some parameters, and nothing of the others: autograd sums all contributions to a parameter before it adds them. So a
    batch that is done again gives gradients only to those others, and what is in `.grad` already stays: earlier batches
    of an accumulated step, and sums that several processes have begun to exchange.
    """

    _pending: _Pending | None = None
    _repeating = False

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        if "training_step" in vars(cls):
            cls.training_step = _patient(cls.training_step)

    def back_off(self) -> str | None:
        """Do the same with less memory from now on; returns what changed in a few words, None where nothing can."""
        return None

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add the gradients of a batch; where memory runs out, do it again for the parameters that lack theirs.

        Raises:
            OutOfMemoryError: nothing is left to save.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            _, shortage = _attempt(lambda: super(ShortMemoryModule, self).backward(loss, *args, **kwargs))
            if shortage is not None:
                raise self._out_of_memory(shortage)
            return
        (scale,) = torch.autograd.grad(loss, pending.cut)  # by accumulation and mixed precision
        before = {p: None if p.grad is None else p.grad.clone() for p in self._written_past_autograd()}
        missing = dict.fromkeys(p for p in self.parameters() if p.requires_grad)
        added = [p for p in missing if p not in before]
        hooks = [p.register_post_accumulate_grad_hook(lambda p: missing.pop(p, None)) for p in added]
        try:
            _, shortage = _attempt(lambda: pending.loss.pop().backward(scale))
            while shortage is not None and missing:
                self._do_with_less(shortage)
                for parameter, grad in before.items():
                    parameter.grad = None if grad is None else grad.clone()
                _, shortage = _attempt(lambda: self._repeat(pending.redo).backward(scale, inputs=list(missing)))
        finally:
            for hook in hooks:
                hook.remove()

    def _written_past_autograd(self) -> list[torch.nn.Parameter]:
        modules: list[Any] = [m for m in self.modules() if hasattr(m, "written_past_autograd")]
        return [p for module in modules for p in module.written_past_autograd()]

    def _repeat(self, forward: Callable[[], Tensor]) -> Tensor:
        """Return the loss of a forward pass that has been logged already."""
        self._repeating = True
        try:
            with self.trainer.precision_plugin.train_step_context():
                return forward()
        finally:
            self._repeating = False

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log, unless a batch is only done again: other processes would wait for sums in which they took part before."""
        if not self._repeating:
            super().log(*args, **kwargs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Do one step; raises OutOfMemoryError when there is no room for the optimiser's own numbers."""
        _, shortage = _attempt(lambda: super(ShortMemoryModule, self).optimizer_step(*args, **kwargs))
        if shortage is not None:
            raise self._out_of_memory(shortage)

    def _do_with_less(self, shortage: str) -> None:
        changed = self.back_off()
        if changed is None:
            raise self._out_of_memory(shortage)
        free_cached_memory()
        logger.warning("warning: step %d: memory ran out; %s. Gradients stay the same.", self.global_step, changed)

    def _out_of_memory(self, shortage: str) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"Memory ran out at step {self.global_step} ({shortage}); use fewer or smaller views (in the main recipe "
            "data.random_camera.batch_size, height and width, in training data.batch_size)."
        )

    def _backward_is_ours(self) -> bool:
        """Return whether a trainer will call `backward`, and none that first looks which parameters the loss reaches."""
        if self._trainer is None or not self.trainer.training:
            return False
        return not getattr(self.trainer.strategy.model, "find_unused_parameters", False)


def _patient(training_step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a training step that is repeated until it fits into memory, and whose graph `backward` can let go."""

    @functools.wraps(training_step)
    def patient(self: ShortMemoryModule, batch: Any, batch_idx: int) -> Any:
        if type(self).training_step is not patient:
            return training_step(self, batch, batch_idx)  # called by a subclass's own, which is patient already

        def forward() -> Any:
            return training_step(self, batch, batch_idx)

        loss, shortage = _attempt(forward)
        while shortage is not None:
            self._do_with_less(shortage)
            loss, shortage = _attempt(forward)
        if not isinstance(loss, Tensor) or not self._backward_is_ours():
            return loss
        self._pending = _Pending([loss], loss.detach().requires_grad_(), forward)
        return self._pending.cut

    return patient


def _attempt(compute: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return the result, or what was short: of the error itself nothing stays, its traceback would hold every tensor."""
    try:
        return compute(), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None, " ".join(str(error).split())[:200] or type(error).__name__
