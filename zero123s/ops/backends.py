"""Which implementation of a fast operation runs: plain torch always, the faster ones where they can."""

import functools
import importlib
import importlib.util
import logging
import os

import torch

from zero123s.errors import ConfigError, MissingDependencyError

logger = logging.getLogger(__name__)

IMPLEMENTED: dict[str, tuple[str, ...]] = {
    "hash_grid": ("reference", "numba", "triton", "tinycudann"),
    "ray_marching": ("reference", "numba", "triton", "nerfacc"),
    "volume_sampling": ("reference", "numba"),
    "compositing": ("reference", "numba", "triton", "nerfacc"),
    "mlp": ("reference", "triton"),
    "convolution": ("reference", "numba"),
    "group_norm": ("reference", "triton"),
    "rasterization": ("reference", "numba", "triton", "nvdiffrast"),
    "gaussian_splatting": ("reference", "numba", "triton", "gsplat"),
    "gaussian_sum": ("reference", "numba", "triton"),
    "unit_vectors": ("reference", "triton"),
}
"""Backends that exist for each operation, "auto" taking the last that works; the plain-torch reference runs on every
device.
"""
VENDORS = {
    "hash_grid": "tinycudann",
    "ray_marching": "nerfacc",
    "compositing": "nerfacc",
    "rasterization": "nvdiffrast",
    "gaussian_splatting": "gsplat",
}
"""The CUDA library of its own that an operation can use when it is named; "cuda" is an older word for it."""
BACKENDS = ("auto", "reference", "numba", "triton", "tinycudann", "nerfacc", "nvdiffrast", "gsplat", "cuda")

_logged: set[tuple[str, str, str]] = set()


@functools.cache
def _numba_works() -> bool:
    """Return whether numba can be imported; warn once where it cannot, because plain torch is many times slower."""
    try:
        import numba  # noqa: F401
    except Exception as error:  # a numba that does not fit the NumPy or LLVM here fails in many ways
        logger.warning("numba cannot be used (%s); slower plain-torch operations run instead", error)
        return False
    return True


def _interpreting() -> bool:
    """Return whether Triton kernels run in its interpreter, on CPU tensors and for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _triton_works() -> bool:
    """Return whether Triton can compile for the GPU; warn once where it cannot, because plain torch is much slower."""
    try:
        if torch.version.cuda is None and torch.version.hip is None:
            raise RuntimeError("this torch is built for CPUs")
        if _interpreting():
            raise RuntimeError("TRITON_INTERPRET is set")
        from triton.runtime import driver

        driver.active.get_current_target()  # builds a few lines of C at the first use on a machine
    except Exception as error:  # no package, no C compiler, a driver that is too old
        logger.warning(
            "Triton cannot be used (%s); slower plain-torch operations run on the GPU instead: "
            "`pip install triton` and see docs/install.md",
            _first_line(error),
        )
        return False
    return True


@functools.cache
def _why_not(package: str) -> str | None:
    """Return why a package's CUDA kernels cannot be used, None when they can; may build them, at the first use."""
    if importlib.util.find_spec(package) is None:
        return "it is not installed"
    try:
        module = importlib.import_module(package)
        if package == "nvdiffrast":
            # Older versions compile their kernels at first use, which may fail, too.
            module = importlib.import_module("nvdiffrast.torch").RasterizeCudaContext()
        if package == "nerfacc":
            # It imports without its kernels and fails in the middle of a run; this builds or loads them now.
            module = importlib.import_module("nerfacc.cuda._backend")._C
    except Exception as error:  # a build for another torch, driver or GPU fails in many ways
        return _first_line(error)
    return "its CUDA kernels are not built" if module is None else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_usable(backend: str, device: torch.device, named: bool) -> bool:
    """Return whether a backend of this project runs on `device` in this environment."""
    if backend == "numba":
        return device.type == "cpu" and _numba_works()
    if backend == "triton":
        return (named and _interpreting()) or (device.type == "cuda" and _triton_works())
    return backend == "reference"


def _check_vendor(op: str, package: str, device: torch.device) -> None:
    """Raise MissingDependencyError unless a vendor's library runs `op` on `device`."""
    reason = _why_not(package) if device.type == "cuda" else f"it needs a CUDA device, not '{device.type}'"
    if reason:
        raise MissingDependencyError(
            f"Backend '{package}' of {op} cannot be used: {reason}; see docs/install.md, or use backend: auto."
        )


def resolve(op: str, backend: str, device: torch.device | str) -> str:
    """Return the backend that runs an operation on a device, and log each choice once.

    "auto" is numba on the CPU and Triton on CUDA where they work, plain torch otherwise; a vendor's library runs only if
    it is named.

    Args:
        op: name of the operation, a key of `IMPLEMENTED`.
        backend: one of `BACKENDS`; "cuda" means the vendor's library of the operation.
        device: where the operation's tensors are.

    Returns:
        One of `IMPLEMENTED[op]`.

    Raises:
        ConfigError: there is no backend of this name.
        MissingDependencyError: a named backend cannot run on this device, or its package is missing.

    Example:
        >>> from zero123s.ops.backends import resolve
        >>> resolve("compositing", "reference", "cpu")
        'reference'
        >>> resolve("compositing", "nerfacc", "cpu")
        Traceback (most recent call last):
        zero123s.errors.MissingDependencyError: Backend 'nerfacc' of compositing cannot be used: it needs a CUDA device...
    """
    device = torch.device(device)
    if backend not in BACKENDS:
        raise ConfigError(f"Unknown backend '{backend}'; choose one of {', '.join(BACKENDS)}.")
    chosen = VENDORS.get(op, backend) if backend == "cuda" else backend
    if chosen in VENDORS.values() and chosen in IMPLEMENTED[op]:
        _check_vendor(op, chosen, device)
    else:
        named = backend != "auto"
        own = [b for b in IMPLEMENTED[op] if b not in VENDORS.values() and _is_usable(b, device, named)]
        chosen = chosen if named else own[-1]
        if chosen not in own:
            raise MissingDependencyError(
                f"Backend '{backend}' of {op} cannot run on device '{device}' here; "
                f"use backend: auto, or one of: {', '.join(own)}."
            )
    key = (op, chosen, device.type)
    if key not in _logged:
        _logged.add(key)
        logger.info("%s runs on %s with backend '%s'", op, device.type, chosen)
    return chosen
