"""torch.cuda for the time of a block: one device that is there, has 24 GB and capability 8.9, and never fails."""

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo.trace_rules

from pretend.counts import Counts
from pretend.device import CUDA, PretendMode, counts
from pretend.hooks import is_loaded

TOTAL_BYTES = 24 * 10**9
_PROPERTIES = types.SimpleNamespace(
    name="Pretended GPU", total_memory=TOTAL_BYTES, major=8, minor=9, multi_processor_count=128, is_integrated=False
)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _always(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


_real_to = torch.Tensor.to


def _indexed(value: Any) -> Any:
    """Return cuda:0 for "cuda": a build without CUDA cannot tell which device that is."""
    is_device = isinstance(value, torch.device) or value == "cuda"
    return CUDA if is_device and torch.device(value) == torch.device("cuda") else value


def _to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    args = tuple(a if isinstance(a, torch.Tensor) else _indexed(a) for a in args)
    return _real_to(self, *args, **{k: _indexed(v) if k == "device" else v for k, v in kwargs.items()})


def _cuda(self: torch.Tensor, device: Any = None, non_blocking: bool = False) -> torch.Tensor:
    return _real_to(self, CUDA, non_blocking=non_blocking)


def _patches(n_devices: int) -> dict[Any, dict[str, Any]]:
    rng_state = torch.zeros(16, dtype=torch.uint8)
    answers = {
        "is_available": True, "device_count": n_devices, "current_device": 0, "is_initialized": True,
        "get_device_properties": _PROPERTIES, "get_device_name": _PROPERTIES.name, "get_device_capability": (8, 9),
        "is_bf16_supported": True, "get_rng_state_all": [rng_state], "get_rng_state": rng_state, "memory_allocated": 0,
        "max_memory_allocated": 0, "max_memory_reserved": 0, "memory_reserved": 0, "memory_stats": {},
        "mem_get_info": (TOTAL_BYTES * 5 // 6, TOTAL_BYTES), "is_current_stream_capturing": False,
        "device": contextlib.nullcontext(),
    }  # fmt: skip
    silent = (
        "_lazy_init", "init", "set_device", "synchronize", "empty_cache", "ipc_collect", "manual_seed",
        "manual_seed_all", "set_rng_state_all", "set_rng_state", "set_per_process_memory_fraction",
        "reset_peak_memory_stats", "_sleep",
    )  # fmt: skip
    return {
        torch.cuda: {**{k: _always(v) for k, v in answers.items()}, **dict.fromkeys(silent, _nothing)},
        torch.Tensor: {"to": _to, "cuda": _cuda},
        torch._C: {"_cuda_clearCublasWorkspaces": _nothing, "_cuda_isCurrentStreamCapturing": _always(False)},
    }


@contextlib.contextmanager
def _patched(patches: dict[Any, dict[str, Any]]) -> Iterator[None]:
    missing = object()
    before = [(owner, name, getattr(owner, name, missing)) for owner, new in patches.items() for name in new]
    for owner, new in patches.items():
        for name, value in new.items():
            setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            if value is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


@contextlib.contextmanager
def pretend_cuda(n_devices: int = 1) -> Iterator[Counts]:
    """Let torch believe in CUDA for the time of the block, and yield what it counts."""
    assert is_loaded(), "pretend.hooks.load() comes before torch is imported"
    # Maps torch's functions at its first call: before they are replaced.
    torch._dynamo.trace_rules.get_torch_obj_rule_map()
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    lifts = torch._C._only_lift_cpu_tensors()
    counts.clear()
    try:
        torch.__future__.set_swap_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") moves within our sight
        # The backward pass runs in this thread: there are no threads for devices that do not exist.
        with _patched(_patches(n_devices)), torch.autograd.set_multithreading_enabled(False), PretendMode():
            yield counts
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)
        torch.__future__.set_swap_module_params_on_conversion(swapped)
        torch.use_deterministic_algorithms(False)
