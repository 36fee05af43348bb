"""The top level of a YAML file: which slots, which trainer, where the run goes."""

import re
from dataclasses import dataclass, field
from typing import Any

from zero123s.config import LoadedConfig, parse, resolve
from zero123s.errors import ConfigError


@dataclass
class TrainerConfig:
    """What is handed to Lightning's Trainer, in its own words."""

    max_steps: int = 600
    """Optimiser steps."""
    max_time: str | None = None
    """Stop after this long, "DD:HH:MM:SS"."""
    val_check_interval: int = 100
    """Steps between validations (views are rendered, the reference view is scored)."""
    limit_val_batches: Any = None
    """Number or share of validation views; 0 turns validation off."""
    limit_test_batches: Any = None
    """Number or share of test views."""
    num_sanity_val_steps: int = 0
    """Validation batches before training."""
    log_every_n_steps: int = 1
    """Steps between log lines."""
    enable_progress_bar: bool = True
    """Show the progress bar."""
    precision: Any = "32"
    """"32", "bf16-mixed" or "16-mixed" (the last needs CUDA)."""
    accelerator: str = "auto"
    """"auto", "cpu" or "gpu"."""
    devices: Any = "auto"
    """Number of devices, or "auto"."""
    num_nodes: int = 1
    """Machines that train together."""
    strategy: str = "auto"
    """Lightning strategy: "auto", "ddp", "fsdp", "ddp_spawn"..."""
    accumulate_grad_batches: int = 1
    """Batches whose gradients are summed before a step."""
    gradient_clip_val: float | None = None
    """Largest gradient norm; None = no clipping."""
    gradient_clip_algorithm: str | None = None
    """"norm" or "value"."""
    deterministic: bool = False
    """Ask torch for deterministic algorithms only."""
    detect_anomaly: bool = False
    """Find the operation that makes a NaN; slow."""
    inference_mode: bool = True
    """No autograd at all outside training; analytic normals switch it back on where they need it."""
    profiler: str | None = None
    """Lightning profiler: "simple", "advanced", "pytorch"."""


@dataclass
class CheckpointConfig:
    """What is handed to Lightning's ModelCheckpoint, in its own words."""

    save_last: Any = True
    """Keep `last.ckpt` up to date; "link" makes it a link to the newest one."""
    save_top_k: int = 1
    """1 keeps the newest checkpoint, -1 all of them, 0 none."""
    every_n_train_steps: int = 100
    """Steps between checkpoints."""


@dataclass
class ExperimentConfig:
    """The top level of a YAML file."""

    data_type: str = "single-image-datamodule"
    """Registered name of the data source."""
    data: Any = field(default_factory=dict)
    """Settings of the data source."""
    system_type: str = "zero123-system"
    """Registered name of the system."""
    system: Any = field(default_factory=dict)
    """Settings of the system: its slots, losses, optimiser."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Lightning Trainer."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Lightning ModelCheckpoint."""
    name: str = "default"
    """Folder below exp_root_dir: one experiment, many runs."""
    description: str = ""
    """Free text, kept with the run."""
    tag: str = ""
    """First half of the run folder's name; empty = the input's file name."""
    seed: int = 0
    """Everything random derives from it."""
    use_timestamp: bool = True
    """Append @date-time to the run folder's name."""
    timestamp: str = ""
    """Set by the program."""
    exp_root_dir: str = "outputs"
    """Where all runs go."""
    resume: str | None = None
    """Checkpoint to go on from: a path, a run folder, or `last`."""
    export_after_train: bool = True
    """Write the mesh when training ends."""
    imports: list[str] = field(default_factory=list)
    """Python packages to import first; they register their own classes."""
    threads: int = 0
    """CPU threads; 0 = one per core."""


def parse_experiment(loaded: LoadedConfig) -> ExperimentConfig:
    """Check the top level; the slots' own sections are checked by `zero123s.system.base.parse_system`."""
    try:
        experiment = parse(ExperimentConfig, resolve(loaded.cfg))
    except ConfigError as error:
        raise ConfigError(f"{error}{_where(loaded, str(error))}") from error
    if experiment.trainer.max_steps < 1:
        raise ConfigError(f"trainer.max_steps must be at least 1, got {experiment.trainer.max_steps}.")
    return experiment


def _where(loaded: LoadedConfig, message: str) -> str:
    """Return " (set in FILE)" for the key that a message quotes."""
    quoted = re.findall(r"[\w]+(?:\.[\w]+)*", message)
    origin = next((loaded.origins[k] for k in quoted if k in loaded.origins), None)
    return f" (set in {origin})" if origin else ""
