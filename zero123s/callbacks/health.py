"""Monitors a run: non-finite values never reach the weights, and problems are reported early."""

import logging
import math
from typing import Any

import pytorch_lightning as pl
import torch

from zero123s.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from zero123s.callbacks.health_checks import HealthMonitor, check_mesh, measure
from zero123s.config.experiment import HealthConfig
from zero123s.errors import RunLostError

logger = logging.getLogger(__name__)


class Health(pl.Callback):
    """Skips steps with non-finite values, restores the last checkpoint if weights are, and checks the measurements.

    Args:
        cfg: the thresholds.
    """

    def __init__(self, cfg: HealthConfig) -> None:
        self.cfg = cfg
        self.monitor = HealthMonitor(cfg)
        self.failures: list[int] = []
        self.halvings: dict[str, int] = {}
        self.warnings: dict[str, str] = {}
        """The latest message of every kind, with its step."""
        self.measured: dict[str, float] = {}
        self._loss: torch.Tensor | None = None
        self._checked = -1

    def check_mesh(self, export_stats: dict[str, Any], earlier: list[str]) -> list[str]:
        """Check an exported mesh and return the run's warnings: the `earlier` ones, with what is new of the mesh."""
        finding = check_mesh(self.cfg, export_stats.get("silhouette_iou"))
        kept = [message for message in earlier if not message.startswith("export: ")]
        if finding is None:
            return kept
        self._warn(finding.name, f"export: {finding.message}")
        return [*kept, self.warnings[finding.name]]

    # ------------------------------------------------------------ kept with the run

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        kept = {"failures": self.failures, "halvings": self.halvings, "warnings": self.warnings}
        return {**kept, "watch": self.monitor.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.failures, self.halvings = list(state_dict["failures"]), dict(state_dict["halvings"])
        self.warnings = dict(state_dict["warnings"])
        self.monitor.load(state_dict["watch"])

    def record(self) -> dict[str, Any]:
        """Return the entry for run.json."""
        failures = {"skipped_steps": self.failures, "halved": self.halvings} if self.failures else {}
        return {"warnings": list(self.warnings.values()), "health": {**self.measured, **failures}}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Halve loss weights that were halved before the run was resumed; rates are restored with the optimiser."""
        for name, times in self.halvings.items():
            if name != "learning rate":
                pl_module.halve_loss(name, times)

    # ------------------------------------------------------------ numbers that are not finite

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: torch.Tensor) -> None:
        """Keep the loss until its gradients are computed."""
        self._loss = loss.detach()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        """Clear the gradients of a step with non-finite values: the optimiser then changes no weights or moments."""
        if trainer.precision == "16-mixed":
            return  # the gradient scaler skips such steps itself, they are how it finds its scale
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        sums = [p.grad.sum(dtype=torch.float32) for p in parameters]
        if self._loss is not None:
            sums.append(self._loss.float())
        finite = not sums or math.isfinite(float(torch.stack(sums).sum()))
        if trainer.strategy.reduce_boolean_decision(finite):  # of several processes all skip, or none
            return
        for parameter in parameters:
            parameter.grad = None
        alone = trainer.world_size == 1  # else each sees losses of its own, and all must halve the same
        bad = [n for n, v in pl_module.diagnostics.losses.items() if alone and not math.isfinite(float(v))]
        self._fail(trainer, pl_module, f"the loss {bad[0]} is not finite" if bad else "a gradient is not finite", bad)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Check the weights before anything can save them, and at intervals the measurements."""
        step = trainer.global_step
        if step == self._checked:
            return  # between accumulated batches
        self._checked = step
        if not _state_is_finite(pl_module):
            self._restore(trainer, pl_module)
        if self.cfg.every and step % self.cfg.every == 0:
            self._check(trainer, pl_module, step)

    def _fail(self, trainer: pl.Trainer, pl_module: Any, what: str, losses: list[str]) -> None:
        step = trainer.global_step
        self.failures.append(step)
        recent = [s for s in self.failures if s > step - self.cfg.failure_window]
        advice = "lower its weight" if losses else "lower system.optimizer.args.lr or set trainer.gradient_clip_val"
        if len(recent) >= self.cfg.max_failures:
            raise RunLostError(
                f"stopped at step {step}: {what}; steps that failed: {recent} (health.max_failures="
                f"{self.cfg.max_failures}). {advice[0].upper()}{advice[1:]}, then go on from the last checkpoint, which "
                "is good, with resume=."
            )
        halved = [name for name in losses if pl_module.halve_loss(name)]
        if not halved:
            _halve_rates(trainer)
            halved = ["learning rate"]
        for name in halved:
            self.halvings[name] = self.halvings.get(name, 0) + 1
        self._warn(
            "not_finite", f"step {step}: {what}; the step was skipped and halved: {', '.join(halved)}. {advice}."
        )

    def _restore(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Restore weights and moments of the last checkpoint, keeping the current step and learning rates."""
        checkpoint = next(c.latest for c in trainer.callbacks if isinstance(c, Checkpoints))  # type: ignore[attr-defined]
        if checkpoint is None or not checkpoint.is_file():
            raise RunLostError(
                f"stopped at step {trainer.global_step}: the weights are not finite, and there is no checkpoint to go "
                "back to yet; lower system.optimizer.args.lr, or checkpoint.every_n_train_steps to have one earlier."
            )
        state = AtomicCheckpointIO().load_checkpoint(checkpoint)
        pl_module.load_state_dict(state["state_dict"])
        for optimizer, kept in zip(trainer.optimizers, state["optimizer_states"], strict=True):
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(kept)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        what = f"the weights are not finite; back to those of step {state['global_step']}"
        self._fail(trainer, pl_module, what, [])

    # ------------------------------------------------------------ measurements

    def _check(self, trainer: pl.Trainer, pl_module: Any, step: int) -> None:
        self.measured = measure(pl_module.diagnostics)
        for run_logger in trainer.loggers:
            run_logger.log_metrics({f"health/{name}": value for name, value in self.measured.items()}, step)
        found = self.monitor.check(step, self.measured)
        for finding in found:
            if self.monitor.in_a_row[finding.name] == 1:
                self._warn(finding.name, f"step {step}: {finding.message}")
        lost = self.monitor.lost(found)
        if lost is not None:
            raise RunLostError(f"stopped at step {step}, because the run is lost (health.lost_after): {lost.message}")

    def _warn(self, name: str, message: str) -> None:
        self.warnings[name] = message
        logger.warning("warning: %s", message)


def _state_is_finite(module: torch.nn.Module) -> bool:
    """Tell whether all trained weights and buffers are finite, from their sum: one pass and one synchronisation."""
    trained = [p for p in module.parameters() if p.requires_grad]
    tensors = [t for t in [*trained, *module.buffers()] if t.is_floating_point() and t.numel()]
    with torch.no_grad():
        return not tensors or math.isfinite(float(torch.stack([t.sum(dtype=torch.float32) for t in tensors]).sum()))


def _halve_rates(trainer: pl.Trainer) -> None:
    """Halve the learning rates, including the base rates from which a scheduler computes them."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
    pending = [config.scheduler for config in trainer.lr_scheduler_configs]
    while pending:
        scheduler: Any = pending.pop()
        pending += getattr(scheduler, "_schedulers", [])
        if hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [rate * 0.5 for rate in scheduler.base_lrs]
