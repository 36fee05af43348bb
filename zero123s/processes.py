"""Which of several processes that train together this one is, told by the environment alone."""

import os
import re

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Set by torchrun, by Lightning for the processes it starts, by SLURM; the first one there counts."""


def is_main_process() -> bool:
    """Return whether this process writes files and speaks; the others only compute."""
    return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"


_PEER_LOST = re.compile(r"connection (closed|reset) by peer|remote process exited|broken pipe", re.IGNORECASE)


def peer_is_lost(error: RuntimeError) -> bool:
    """Tell whether gloo or NCCL says that another process is gone."""
    return bool(_PEER_LOST.search(str(error)))
