"""Devices, precision and threads of a run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zero123s.config.experiment import ExperimentConfig, TrainerConfig
from zero123s.errors import ConfigError
from zero123s.ops.threads import measured_threads
from zero123s.run.folder import read_run_record
from zero123s.runtime.processes import RANKS, peak_resident_gb, print_rank_zero


def choose_devices(experiment: ExperimentConfig, gpu: str | None) -> tuple[str, Any]:
    """Return Lightning's accelerator and devices; `--gpu` without CUDA continues on the CPU, with a message.

    Without `--gpu` one of several GPUs is used: several processes average their gradients, which is another
    recipe.

    Raises:
        ConfigError: `--gpu` is not a list of indices, or there are not that many GPUs.
    """
    t = experiment.trainer
    if gpu is None and _takes_one_of_many(t):
        print_rank_zero(
            f"note: of the {torch.cuda.device_count()} GPUs here, this run takes GPU 0; --gpu N takes another, --gpu 0,1 "
            "several, which draw views of their own and average their gradients."
        )
        return "gpu", [0]
    if gpu is None:
        return t.accelerator, t.devices
    indices = [w.strip() for w in gpu.split(",")]
    if not all(w.isdigit() for w in indices):
        raise ConfigError(f"--gpu {gpu}: expected an index such as 0, or several such as 0,1.")
    if not torch.cuda.is_available():
        print_rank_zero(f"note: --gpu {gpu}: CUDA is not available here; running on the CPU.")
        return "cpu", "auto"
    count = torch.cuda.device_count()
    if max(int(w) for w in indices) >= count:
        raise ConfigError(f"--gpu {gpu}: there are {count} GPUs here, counted from 0.")
    return "gpu", [int(w) for w in indices]


def _takes_one_of_many(t: TrainerConfig) -> bool:
    """Tell whether Lightning would use all of several GPUs by default."""
    unasked = t.accelerator in ("auto", "gpu") and t.devices == "auto" and t.strategy == "auto" and t.num_nodes == 1
    started = any(name in os.environ for name in RANKS)  # by torchrun or SLURM: the processes are there already
    return unasked and not started and torch.cuda.is_available() and torch.cuda.device_count() > 1


def first_device(accelerator: str, devices: Any) -> torch.device:
    """Return the device of a run in a single process without a trainer."""
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return torch.device("cpu")
    named = isinstance(devices, Sequence) and not isinstance(devices, str) and len(devices) > 0
    return torch.device("cuda", int(devices[0]) if named else 0)


def peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory of this process on `device` so far, in GB; on a CPU its resident memory."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else peak_resident_gb()


def choose_precision(precision: str, on_gpu: bool) -> str:
    """Return the precision; 16-mixed needs CUDA and becomes 32 without it, with a message."""
    if precision == "16-mixed" and not on_gpu:
        print_rank_zero("note: trainer.precision=16-mixed needs CUDA; running in 32.")
        return "32"
    return precision


def set_tf32(allowed: bool, device: torch.device) -> None:
    """Let float32 products on CUDA be computed in TF32, or not; a CPU always computes in float32."""
    torch.set_float32_matmul_precision("high" if allowed and device.type == "cuda" else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def choose_threads(requested: int, out_dir: Path) -> int:
    """Return the number of CPU threads; 0 = as before in this run folder, else the faster one by measurement."""
    # Another number sums in another order: a resumed run must keep its own to be equal bit for bit.
    return requested or int(read_run_record(out_dir).get("threads", 0)) or measured_threads()
