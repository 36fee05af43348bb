"""Which of several processes that train together this one is, told by the environment alone."""

import os

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Set by torchrun, by Lightning for the processes it starts, by SLURM; the first one there counts."""


def is_main_process() -> bool:
    """Return whether this process writes files and speaks; the others only compute."""
    return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"
