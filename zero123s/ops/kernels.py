"""How numba kernels are started: one at a time, on torch's number of threads, with a note before a compilation."""

import logging
import threading

import numba
import torch
from torch import Tensor

logger = logging.getLogger(__name__)
# numba's fallback threading layer must not be entered by two threads at once, whichever kernels they run.
_lock = threading.Lock()


def n_threads() -> int:
    """Return how many threads a kernel may use: torch's number, as far as numba has started as many."""
    return max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def launch(kernel, *args) -> None:
    """Run a compiled function on tensors (as contiguous arrays), arrays and numbers.

    Results are written into the arguments, which therefore must be contiguous already.
    """
    arrays = [a.detach().contiguous().numpy() if isinstance(a, Tensor) else a for a in args]
    with _lock:
        if not kernel.signatures:
            logger.info("Loading or compiling the kernel %s (seconds, the first time on this machine)", kernel.__name__)
        numba.set_num_threads(n_threads())
        kernel(*arrays)
