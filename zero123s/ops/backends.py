"""Which implementation of a fast operation runs: plain torch always, the faster ones where they can."""

import functools
import importlib
import importlib.util
import logging

import torch

from zero123s.errors import ConfigError, MissingDependencyError

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "numba", "cuda")
IMPLEMENTED: dict[str, tuple[str, ...]] = {
    "hash_grid": ("reference", "numba", "cuda"),
    "ray_marching": ("reference", "numba", "cuda"),
    "volume_sampling": ("reference", "numba"),
    "compositing": ("reference", "numba", "cuda"),
    "convolution": ("reference", "numba"),
    "rasterization": ("reference", "numba", "cuda"),
}
"""Backends that exist for each operation; the plain-torch reference runs on every device."""
CUDA_PACKAGES = {
    "hash_grid": "tinycudann",
    "ray_marching": "nerfacc",
    "compositing": "nerfacc",
    "rasterization": "nvdiffrast",
}
"""The package that owns an operation's CUDA backend."""
INSTALL = {
    "nvdiffrast": "pip install setuptools wheel ninja && pip install --no-build-isolation "
    "git+https://github.com/NVlabs/nvdiffrast.git"
}
"""How a package is installed that is built from its repository, against the torch that is there."""

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


@functools.cache
def _package_works(package: str) -> bool:
    """Tell whether a package's CUDA kernels can be used; warn once where it is there and they cannot."""
    if importlib.util.find_spec(package) is None:
        return False
    try:
        module = importlib.import_module(package)
        if package == "nvdiffrast":
            # Older versions compile their kernels at first use, which may fail, too.
            module = importlib.import_module("nvdiffrast.torch").RasterizeCudaContext()
        if package == "nerfacc":
            # It imports without its kernels and fails in the middle of a run; this builds or loads them now.
            module = importlib.import_module("nerfacc.cuda._backend")._C
    except Exception as error:  # a build for another torch, driver or GPU fails in many ways
        logger.warning("%s cannot be used (%s); slower plain-torch operations run instead", package, error)
        return False
    if module is None:
        logger.warning("nerfacc has no CUDA kernels here; slower plain-torch operations run instead")
    return module is not None


def _is_usable(op: str, backend: str, device: torch.device) -> bool:
    """Tell whether `backend` can run `op` on tensors of `device` in this environment."""
    if backend == "numba":
        return device.type == "cpu" and _numba_works()
    if backend == "cuda":
        return device.type == "cuda" and _package_works(CUDA_PACKAGES[op])
    return backend == "reference"


def _what_it_needs(op: str, backend: str) -> str:
    """Return what a backend lacks that cannot run, in brackets."""
    if backend != "cuda" or op not in CUDA_PACKAGES:
        return ""
    package = CUDA_PACKAGES[op]
    how = f"; {INSTALL[package]}" if package in INSTALL else ""
    return f" (it needs a CUDA device and {package}{how})"


def resolve(op: str, backend: str, device: torch.device | str) -> str:
    """Return the backend that runs `op` on `device`, and log each choice once.

    Raises ConfigError for an unknown backend, MissingDependencyError for a named one that cannot run here.
    """
    device = torch.device(device)
    if backend not in BACKENDS:
        raise ConfigError(f"Unknown backend '{backend}'; choose one of {', '.join(BACKENDS)}.")
    usable = [b for b in IMPLEMENTED[op] if _is_usable(op, b, device)]
    chosen = usable[-1] if backend == "auto" else backend
    if chosen not in usable:
        raise MissingDependencyError(
            f"Backend '{backend}' of {op} cannot run on device '{device}' here{_what_it_needs(op, backend)}; "
            f"use backend: auto, or one of: {', '.join(usable)}."
        )
    key = (op, chosen, device.type)
    if key not in _logged:
        _logged.add(key)
        logger.info("%s runs on %s with backend '%s'", op, device.type, chosen)
    return chosen
