"""Triton kernels on the pretended device: run by Triton's interpreter, each counted as one launch.

TRITON_INTERPRET=1 has to stand in the environment before triton is imported, which torch may do.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from pretend.counts import place
from pretend.device import PretendTensor, counts


@contextlib.contextmanager
def interpreted_triton() -> Iterator[None]:
    """Let the backend `triton` run on the pretended device for the time of the block."""
    assert os.environ.get("TRITON_INTERPRET") == "1", "kernels would be compiled for a GPU that is not there"
    from triton.runtime.interpreter import GridExecutor

    from zero123s.ops import agreement, backends

    real_call, real_works, real_points = GridExecutor.__call__, backends._triton_works, agreement.POINTS

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        where = place()
        tensors = [a for a in [*args, *kwargs.values()] if isinstance(a, torch.Tensor)]
        counts.launches[where] += 1
        counts.ops["(triton)"] += 1
        counts.bytes_moved[where] += sum(t.numel() * t.element_size() for t in tensors)
        return real_call(self, *map(_on_cpu, args), **{name: _on_cpu(a) for name, a in kwargs.items()})

    GridExecutor.__call__, backends._triton_works = call, lambda: True
    agreement.POINTS = 200  # interpreted, the kernels take milliseconds for these already
    try:
        yield
    finally:
        GridExecutor.__call__, backends._triton_works = real_call, real_works
        agreement.POINTS = real_points


def _on_cpu(argument: Any) -> Any:
    return argument._inner if isinstance(argument, PretendTensor) else argument
