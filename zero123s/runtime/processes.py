"""The process: its rank among those that train together, its messages on stderr, its peak memory."""

import os
import re
import sys

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Set by torchrun, by Lightning for the processes it starts, by SLURM; the first one there counts."""


def is_main_process() -> bool:
    """Return whether this process writes files and speaks; the others only compute."""
    return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"


_PEER_LOST = re.compile(r"connection (closed|reset) by peer|remote process exited|broken pipe", re.IGNORECASE)


def peer_is_lost(error: BaseException) -> bool:
    """Tell whether gloo or NCCL says that another process is gone."""
    return bool(_PEER_LOST.search(str(error)))


def print_rank_zero(text: str) -> None:
    """Tell something that is neither a result nor an error; once, however many processes train together."""
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


def peak_resident_gb() -> float:
    """Return the largest resident memory of this process so far, in GB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6
