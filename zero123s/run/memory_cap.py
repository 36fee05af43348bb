"""`trainer.max_memory_gb`: a run that may not take more than its share, and disk space looked at before it is needed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from zero123s.errors import ConfigError, OutputError
from zero123s.runtime.processes import print_rank_zero

RESERVE_BYTES = 100_000_000
"""Pictures, a turntable, logs and a mesh of the main recipe."""


@contextmanager
def memory_capped(max_gb: float | None, on_gpu: bool) -> Iterator[None]:
    """Let nothing allocate beyond `max_gb` for the time of the block; what is asked for then fails at once.

    On a GPU it is the GPU's memory, on a CPU the process's own data (what threads and libraries have reserved without
    using it does not count). None = no limit.

    Raises:
        ConfigError: the program alone needs more, or the GPU has less.
    """
    if max_gb is None:
        yield
    elif on_gpu:
        with _cuda_capped(max_gb):
            yield
    else:
        with _data_capped(max_gb):
            yield


@contextmanager
def _cuda_capped(max_gb: float) -> Iterator[None]:
    total_gb = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 1e9
    if max_gb > total_gb:
        raise ConfigError(f"trainer.max_memory_gb={max_gb:g}: the GPU has {total_gb:.1f} GB.")
    torch.cuda.set_per_process_memory_fraction(max_gb / total_gb)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@contextmanager
def _data_capped(max_gb: float) -> Iterator[None]:
    reserved, used = data_bytes()
    if not reserved:
        print_rank_zero("note: trainer.max_memory_gb cannot be kept on this system; it needs Linux or CUDA.")
        yield
        return
    if used > max_gb * 1e9:
        raise ConfigError(
            f"trainer.max_memory_gb={max_gb:g}: program and libraries alone hold {used / 1e9:.2f} GB; allow more."
        )
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(max_gb * 1e9) + reserved - used, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def data_bytes() -> tuple[int, int]:
    """Return how much private memory this process has reserved, and how much of it is in use; zeros where unknown."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    kb = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.endswith(" kB")}
    return 1024 * kb.get("VmData", 0), 1024 * kb.get("RssAnon", kb.get("VmRSS", 0))


def require_disk_space(folder: Path, checkpoint_bytes: int, n_checkpoints: int) -> None:
    """Raise OutputError when a run's files will not fit where `folder` is or would be.

    Args:
        checkpoint_bytes: size of one checkpoint.
        n_checkpoints: how many are kept; one more lies beside them while it is written.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return  # where space cannot be asked for, a full disk is told when it comes
    needed = checkpoint_bytes * (n_checkpoints + 1) + RESERVE_BYTES
    if free < needed:
        raise OutputError(
            f"'{folder}' has {free / 1e9:.2f} GB of free space and the run needs about {needed / 1e9:.2f} GB "
            f"({n_checkpoints + 1} checkpoints of {checkpoint_bytes / 1e9:.2f} GB, pictures, mesh); free some, or "
            f"choose another exp_root_dir{'' if n_checkpoints < 3 else ', or lower checkpoint.save_top_k'}."
        )


def checkpoint_bytes(module: torch.nn.Module) -> int:
    """Return about how large a checkpoint will be: weights, buffers, and two moments of every trained weight."""
    weights = sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
    return weights + sum(2 * p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
