"""The process: its rank in distributed training, its messages on stderr, its peak memory."""

import os
import re
import sys

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Set by torchrun, by Lightning for the processes it starts, or by SLURM; the first one that is set is used."""


def is_main_process() -> bool:
    """Tell whether this process writes files and messages (rank zero)."""
    return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"


_PEER_LOST = re.compile(r"connection (closed|reset) by peer|remote process exited|broken pipe", re.IGNORECASE)


def peer_is_lost(error: BaseException) -> bool:
    """Tell whether an error of gloo or NCCL means that another process is gone."""
    return bool(_PEER_LOST.search(str(error)))


def print_rank_zero(text: str) -> None:
    """Print a message to stderr, from rank zero only."""
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


def peak_resident_gb() -> float:
    """Return this process's peak resident memory so far, in GB; 0 if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6
