"""Base class of all training systems: a LightningModule with typed slots, schedules and repeatable randomness."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from zero123s.config.experiment import ExperimentConfig
from zero123s.config.options import schedules, walk
from zero123s.config.parse import parse_slot
from zero123s.config.schedule import Schedule
from zero123s.data import DATA
from zero123s.data.base import BaseData
from zero123s.errors import OutOfMemoryError
from zero123s.ops.memory import retry_on_oom
from zero123s.randomness import generator_for
from zero123s.registry import Registry
from zero123s.structures import StepDiagnostics

MAX_PARTS = 64


class BaseSystem(pl.LightningModule):
    """Base class of `system_type`.

    A step that runs out of memory is repeated in twice as many parts, with the same random numbers and the same
    gradients: forward pass, clearing of gradients and backward pass are one closure, so that calling it again is all it
    takes. With several processes, or gradients accumulated over batches, a repeated pass would be counted twice;
    there, and where `MAX_PARTS` do not fit either, the run ends with a sentence that names `memory_keys`.

    Args:
        cfg: the parsed `Config` of the subclass, slot sections included.
        data: the data source; prepared, except in a dry run, which builds everything and reads nothing.
        seed: the run's seed.
    """

    @dataclass
    class Config:
        """A system without settings."""

    memory_keys: tuple[str, str] = ("data.batch_size", "data.height")
    """The two settings that a run which does not fit into memory should lower first."""

    def __init__(self, cfg: Any, data: BaseData, seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.data_source = data
        self.seed = seed
        self.export_stats: dict[str, Any] = {}
        """Statistics of the last export, for run.json."""
        self.model_record: dict[str, Any] = {}
        """The model's entry in run.json of a resumed run."""
        self.diagnostics = StepDiagnostics()
        """Of the last training step, for callbacks."""
        self._logged: dict[str, torch.Tensor] = {}
        self.n_parts = 1
        """Parts that a step is computed in; a system that can do so divides its work by it."""

    @classmethod
    def check(cls, cfg: Any) -> None:
        """Check and type the nested slot sections of `cfg` in place, building nothing; raises ConfigError."""

    @classmethod
    def requirements(cls, cfg: Any, mode: str) -> dict[str, Any]:
        """Check that everything a mode needs exists, before anything is built or written.

        Returns:
            What would be used, by name, for `--dry-run`; "model" as in `describe()`.

        Raises:
            UserError: a model or an optional package that is missing.
        """
        return {}

    def start(self) -> dict[str, Any]:
        """Initialise parameters of a new run from its data; not called when resuming or with a first stage.

        Returns:
            Its entries in run.json, by key.
        """
        return {}

    @property
    def weights_from(self) -> str | None:
        """The checkpoint whose weights a new run starts from; None = none."""
        return None

    @property
    def weights_ignored(self) -> list[str]:
        """Modules that are not loaded from `weights_from`."""
        return []

    @property
    def first_stage(self) -> str | None:
        """The checkpoint of an earlier run that this one refines; None = there is none."""
        return None

    @property
    def first_stage_override(self) -> Mapping[str, Any]:
        """Settings that replace those of the first stage's geometry."""
        return {}

    def start_from(self, first: "BaseSystem") -> dict[str, Any]:
        """Initialise the parameters of a new run from an earlier system; only called with a `first_stage`.

        Returns:
            Its entry in run.json.
        """
        raise NotImplementedError(f"{type(self).__name__} names a first_stage and must define start_from().")

    def load_networks(self, device: torch.device) -> None:
        """Load what training needs besides the trained modules, before the run folder is made; raises CheckpointError."""

    def generator(self, purpose: str, step: int | None = None) -> torch.Generator:
        """Return a generator that depends on seed, step, rank and purpose alone."""
        step = self.global_step if step is None else step
        return generator_for(self.seed, step, purpose, self.global_rank)

    def log_numbers(self, numbers: Mapping[str, torch.Tensor]) -> None:
        """Log numbers of a training step by name, fetched from a GPU together.

        `log` would wait for each of them, and its bookkeeping of means over epochs, which are not needed here, takes
        longer than writing them.
        """
        there = [name for name, number in numbers.items() if number.device.type != "cpu"]
        fetched = torch.stack([numbers[name].detach().float() for name in there]).cpu() if there else []
        self._logged = {name: number.detach() for name, number in numbers.items()}
        self._logged.update(zip(there, fetched, strict=True))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Reset the diagnostics, and update every module's schedules for this step."""
        self.diagnostics = replace(self.diagnostics, step=self.global_step, losses={}, numbers={}, guidance_images={})
        step_modules(self, self.global_step)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Do one step, repeated in more parts if memory runs out, see the class; write what it logged."""
        repeatable = self.trainer.world_size == 1 and self.trainer.accumulate_grad_batches == 1
        use_less = self._use_more_parts if repeatable else lambda: None
        super().optimizer_step(epoch, batch_idx, optimizer, lambda: retry_on_oom(optimizer_closure, use_less))
        self._write_numbers(self.diagnostics.step)

    def _write_numbers(self, step: int) -> None:
        """Hand the numbers of a step to callbacks and, every few steps, to the loggers."""
        self.trainer.callback_metrics.update(self._logged)
        every = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if self._logged and (step + 1) % every == 0:
            numbers = {name: float(number) for name, number in self._logged.items()}
            for logger in self.trainer.loggers:
                logger.log_metrics(numbers, step)
                logger.save()

    def out_of_memory(self, error: BaseException) -> OutOfMemoryError:
        """Return the error message for a step that does not fit into memory and cannot be split further."""
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        first, second = self.memory_keys
        return OutOfMemoryError(f"Memory ran out at step {self.global_step} ({detail}): lower {first} or {second}.")

    def _use_more_parts(self) -> str | None:
        if self.n_parts >= MAX_PARTS:
            return None
        self.n_parts *= 2
        return f"steps are computed in {self.n_parts} parts, with the same gradients,"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of parts: a sum over other parts differs in its last bits."""
        checkpoint["n_parts"] = self.n_parts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of parts."""
        self.n_parts = checkpoint.get("n_parts", 1)

    def preview(self, out_dir: Path, step: int) -> dict[str, float]:
        """Write images of the current state below out_dir/save; returns scores by name, for the logs and run.json."""
        return {}

    def test(self, out_dir: Path, step: int) -> dict[str, Path]:
        """Write the final images or videos below out_dir/save; returns the files by kind."""
        return {}

    def export(self, out_dir: Path, progress: Any = None) -> dict[str, Path]:
        """Write the results below `out_dir`; returns the files by kind."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return the networks' entry in run.json: path, sha256, family, bundled."""
        return self.model_record

    def halve_loss(self, name: str, times: int = 1) -> bool:
        """Halve the weight of a term of `diagnostics.losses` from now on; returns False if unsupported."""
        return False

    def extra_loggers(self, out_dir: Path) -> list[Any]:
        """Return Lightning loggers besides TensorBoard and CSV; raises MissingDependencyError."""
        return []


SYSTEMS: Registry[BaseSystem] = Registry("system", BaseSystem)


def step_modules(root: nn.Module, step: int) -> None:
    """Call `on_step(step)` once on every module below `root` that has one."""
    for module in root.modules():
        if module is not root and hasattr(module, "on_step"):
            module.on_step(step)  # type: ignore[operator]


@dataclass
class Plan:
    """A fully checked experiment, not built yet."""

    experiment: ExperimentConfig
    data_class: type[BaseData]
    system_class: type[BaseSystem]

    def build(self, prepare: bool = True) -> BaseSystem:
        """Read the data (optional in a dry run) and build the system; networks are loaded when training starts."""
        data = self.data_class(self.experiment.data, self.experiment.seed)
        if prepare:
            data.prepare()
        return self.system_class(self.experiment.system, data, self.experiment.seed)

    def requirements(self, mode: str) -> dict[str, Any]:
        """Check that everything a mode needs exists, building and writing nothing; see `BaseSystem.requirements`."""
        return self.system_class.requirements(self.experiment.system, mode)

    def schedules(self) -> dict[str, Schedule]:
        """Return every scheduled value by its full key."""
        return schedules(self.experiment)

    def notices(self) -> list[str]:
        """Return notes on settings that are valid but probably unintended."""
        last = self.experiment.trainer.max_steps
        found = [
            f"{key} never moves: its schedule starts at step {s.points[0][0]} and the run ends at {last}."
            for key, s in self.schedules().items()
            if not s.is_constant and s.points[0][0] >= last
        ]
        for key, field, value in walk(self.experiment):
            late = [step for step in value if step >= last] if field.name == "resolution_milestones" else []
            if late:
                found.append(f"{key}: the stages from step {late[0]} on are never reached, the run ends at {last}.")
        return found


def plan_experiment(experiment: ExperimentConfig) -> Plan:
    """Check every section of an experiment completely; raises ConfigError."""
    # The system first: data that a second stage inherits are empty as long as its first stage is not named.
    system_class, experiment.system = parse_slot(SYSTEMS, experiment.system_type, experiment.system, "system")
    data_class, experiment.data = parse_slot(DATA, experiment.data_type, experiment.data, "data")
    system_class.check(experiment.system)
    return Plan(experiment, data_class, system_class)
