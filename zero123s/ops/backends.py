"""Which implementation of a fast operation runs: plain torch always, the faster ones where they can."""

import functools
import logging

import torch

from zero123s.errors import ConfigError, MissingDependencyError

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "numba", "cuda")
IMPLEMENTED: dict[str, tuple[str, ...]] = {
    "hash_grid": ("reference", "numba"),
    "ray_marching": ("reference", "numba"),
    "volume_sampling": ("reference", "numba"),
    "compositing": ("reference", "numba"),
}
"""Backends that exist for each operation; the plain-torch reference runs on every device."""

_logged: set[tuple[str, str, str]] = set()


@functools.cache
def _numba_works() -> bool:
    """Tell whether numba can be imported; warn once where it cannot, because plain torch is many times slower."""
    try:
        import numba  # noqa: F401
    except Exception as error:  # a numba that does not fit the NumPy or LLVM here fails in many ways
        logger.warning("numba cannot be used (%s); slower plain-torch operations run instead", error)
        return False
    return True


def _is_usable(backend: str, device: torch.device) -> bool:
    """Tell whether `backend` can run on tensors of `device` in this environment."""
    if backend == "numba":
        return device.type == "cpu" and _numba_works()
    return backend == "reference"


def resolve(op: str, backend: str, device: torch.device | str) -> str:
    """Return the backend that runs `op` on `device`, and log each choice once.

    Raises ConfigError for an unknown backend, MissingDependencyError for a named one that cannot run here.
    """
    device = torch.device(device)
    if backend not in BACKENDS:
        raise ConfigError(f"Unknown backend '{backend}'; choose one of {', '.join(BACKENDS)}.")
    usable = [b for b in IMPLEMENTED[op] if _is_usable(b, device)]
    chosen = usable[-1] if backend == "auto" else backend
    if chosen not in usable:
        raise MissingDependencyError(
            f"Backend '{backend}' of {op} cannot run on device '{device}' here; "
            f"use backend: auto, or one of: {', '.join(usable)}."
        )
    key = (op, chosen, device.type)
    if key not in _logged:
        _logged.add(key)
        logger.info("%s runs on %s with backend '%s'", op, device.type, chosen)
    return chosen
