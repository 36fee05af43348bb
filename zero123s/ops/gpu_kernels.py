"""How Triton kernels are started: on the tensors' own device, with the rounding of plain torch.

Whether `triton.jit` compiles for the GPU or interprets on the CPU is decided when a kernel's module is imported, by
the environment variable TRITON_INTERPRET; interpreted kernels take CPU tensors and are for tests.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], *args: Tensor | float, **meta: Any) -> None:
    """Run a Triton kernel on the device of its first tensor.

    Multiplications and additions are not fused, so that cells and samples are those of the plain-torch reference.

    Args:
        kernel: a function under `triton.jit`.
        grid: number of blocks along up to three axes.
        args: the kernel's arguments in order, at least one of them a tensor.
        meta: its compile-time constants by name.
    """
    device = next(a.device for a in args if isinstance(a, Tensor))
    # Triton launches on the current device, whatever the tensors' own.
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[grid](*args, **meta, enable_fp_fusion=False)


def blocks(n: int, size: int) -> int:
    """Return how many blocks cover a number of elements.

    Args:
        n: elements.
        size: elements per block.

    Returns:
        n / size, rounded up.
    """
    return (n + size - 1) // size
