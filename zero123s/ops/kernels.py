"""How numba kernels are started: on torch's number of threads, with a note before a compilation.

Kernels are plain compiled loops that release the GIL, `kernel(part, n_parts, ...)`, and Python threads run the parts.
numba's own parallel loops take twice as long to compile, and their fallback threading layer may not be entered by two
threads at once; torch's pool would be one more to wake for each of many short loops.
"""

import logging
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_pools: dict[int, ThreadPoolExecutor] = {}


def launch(kernel, *args) -> None:
    """Run all parts of a compiled numba function, one per torch thread.

    Results are written into the arguments, which therefore must be contiguous. Parts never write to the same place, so
    that results do not depend on their number.

    Args:
        kernel: a compiled function of (part, n_parts, ...) that releases the GIL.
        args: its other arguments: CPU tensors (handed over as contiguous arrays), arrays, tuples and numbers.
    """
    arrays = [a.detach().contiguous().numpy() if isinstance(a, Tensor) else a for a in args]
    if not kernel.signatures:
        logger.info("Loading or compiling the kernel %s (seconds, the first time on this machine)", kernel.__name__)
    n_parts = torch.get_num_threads()
    if n_parts == 1:
        kernel(0, 1, *arrays)
        return
    if n_parts not in _pools:
        _pools[n_parts] = ThreadPoolExecutor(n_parts, thread_name_prefix="kernel")
    for done in [_pools[n_parts].submit(kernel, part, n_parts, *arrays) for part in range(n_parts)]:
        done.result()
