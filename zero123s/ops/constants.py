"""Small constant tensors, made once per device: making one on a GPU is a copy that the host waits for."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def constant(values: Sequence[float], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a small constant tensor, made once per device and shared by all callers.

    Args:
        values: the numbers.
        like: a tensor on the target device.
        dtype: of the result; None = that of `like`.

    Returns:
        A tensor of one axis, which callers must not write to.
    """
    return _constant(tuple(values), dtype or like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is made here may be saved for a backward pass elsewhere
        return torch.tensor(values, dtype=dtype, device=device)
