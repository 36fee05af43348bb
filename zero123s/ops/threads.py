"""How many CPU threads pay off here and now."""

import time

import torch
from torch.nn import functional as F

from zero123s.ops.mlp import mlp_forward


def measured_threads(repeats: int = 3) -> int:
    """Measure whether one thread or torch's default number runs a small piece of a training step sooner.

    All cores are not always best: while something else keeps one busy, torch's many short parallel regions wait for
    each other, and a step on two threads can take ten times as long as on one. Takes a fraction of a second.

    Args:
        repeats: measurements of each, of which the shortest counts.

    Returns:
        1 or torch's default number of threads.
    """
    default = torch.get_num_threads()
    seconds = {}
    for n_threads in sorted({1, default}):
        torch.set_num_threads(n_threads)
        seconds[n_threads] = min(sample_seconds() for _ in range(repeats))
    torch.set_num_threads(default)
    return min(seconds, key=seconds.__getitem__)


def sample_seconds() -> float:
    """Measure a network pass over many points, forward and back, and one convolution.

    Returns:
        Wall time in seconds.
    """
    x, layers = torch.rand(32768, 32), [torch.rand(n, m, requires_grad=True) for n, m in ((32, 32), (4, 32))]
    image, kernel = torch.rand(4, 64, 32, 32), torch.rand(64, 64, 3, 3)
    started = time.perf_counter()
    mlp_forward(x, layers).sum().backward()
    F.conv2d(image, kernel, padding=1)
    return time.perf_counter() - started
