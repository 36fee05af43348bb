"""What a run computes on: devices, precision, threads."""

from pathlib import Path
from typing import Any

import torch

from zero123s.config.experiment import ExperimentConfig
from zero123s.errors import ConfigError
from zero123s.ops.threads import measured_threads
from zero123s.run.folder import read_run_record
from zero123s.runtime.processes import print_rank_zero


def choose_devices(experiment: ExperimentConfig, gpu: str | None) -> tuple[str, Any]:
    """Return Lightning's accelerator and devices; `--gpu` without CUDA goes on on the CPU and says so.

    Raises:
        ConfigError: `--gpu` is no list of indices, or there are not that many GPUs.
    """
    t = experiment.trainer
    if gpu is None:
        return t.accelerator, t.devices
    words = [w.strip() for w in gpu.split(",")]
    if not all(w.isdigit() for w in words):
        raise ConfigError(f"--gpu {gpu}: expected an index such as 0, or several such as 0,1.")
    if not torch.cuda.is_available():
        print_rank_zero(f"note: --gpu {gpu}: CUDA is not available here; running on the CPU.")
        return "cpu", "auto"
    count = torch.cuda.device_count()
    if max(int(w) for w in words) >= count:
        raise ConfigError(f"--gpu {gpu}: there are {count} GPUs here, counted from 0.")
    return "gpu", [int(w) for w in words]


def choose_precision(precision: str, on_gpu: bool) -> str:
    """Return the precision that the device has; 16-mixed needs CUDA and becomes 32 without it, said aloud."""
    if precision == "16-mixed" and not on_gpu:
        print_rank_zero("note: trainer.precision=16-mixed needs CUDA; running in 32.")
        return "32"
    return precision


def choose_threads(wanted: int, out_dir: Path) -> int:
    """Return the wanted number of CPU threads; 0 = as before in this run folder, else what is measured to pay off."""
    # Another number sums in another order: a run that goes on must keep its own to be repeatable to the last bit.
    return wanted or int(read_run_record(out_dir).get("threads", 0)) or measured_threads()
