"""Reads the pickle inside a PyTorch checkpoint without importing or calling anything that it names.

Tensors become `PickledTensor` records that say where their bytes lie; every other class becomes an inert placeholder,
so that a Lightning checkpoint loads without Lightning. A pickle that would call a function is refused.
"""

import io
import pickle
import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from zero123s.errors import CheckpointError


@dataclass(frozen=True)
class PickledStorage:
    """The bytes of one or more tensors: record `data/<key>` of the archive."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class PickledTensor:
    """Where a tensor lies in a storage; offset and stride count elements."""

    storage: PickledStorage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Functions that ordinary training checkpoints call besides classes: they rebuild numbers, arrays and containers.
_HARMLESS_CALLS = {
    f"{module}.{name}"
    for module, names in {
        "numpy.core.multiarray": ("scalar", "_reconstruct"),
        "numpy._core.multiarray": ("scalar", "_reconstruct"),
        "numpy.core.numeric": ("_frombuffer",),
        "numpy._core.numeric": ("_frombuffer",),
        "numpy": ("dtype", "ndarray"),
        "_codecs": ("encode",),
        "torch": ("device", "Size"),
        "torch._utils": ("_rebuild_tensor", "_rebuild_parameter_with_state"),
        "torch.random": ("Generator",),
        "copyreg": ("_reconstructor",),
        "copy_reg": ("_reconstructor",),
        "collections": ("defaultdict", "Counter", "deque"),
        "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
        "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
        "argparse": ("Namespace",),
        "functools": ("partial",),
    }.items()
    for name in names
} | {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "str", "bytes", "bytearray")
}  # fmt: skip


class _Inert:
    """Placeholder for a class that is not imported: can be created, filled and compared, and has no effect."""

    qualified_name = ""

    def __new__(cls, *args: Any) -> "_Inert":
        if not _is_harmless(cls.qualified_name):
            arguments = ", ".join(repr(a)[:80] for a in args if not isinstance(a, _Inert))
            raise CheckpointError(f"it would run {cls.qualified_name}({arguments})")
        return object.__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Ignore a list item."""

    def extend(self, values: Any) -> None:
        """Ignore list items."""

    def add(self, value: Any) -> None:
        """Ignore a set item."""


def _is_harmless(name: str) -> bool:
    """Tell whether a checkpoint may call `name`: a class of a library, or a function that rebuilds plain data."""
    if name in _HARMLESS_CALLS:
        return True
    top, last = name.split(".", maxsplit=1)[0], name.rsplit(".", maxsplit=1)[-1]
    in_standard_library = top in sys.stdlib_module_names or top in ("__builtin__", "nt", "posix", "commands")
    return not in_standard_library and last[:1].isupper()


def load_inert(data: bytes) -> Any:
    """Unpickle an object with tensors as `PickledTensor` and unknown classes as inert placeholders.

    Args:
        data: the pickle.

    Returns:
        The object; nothing that it names was imported or called.

    Raises:
        CheckpointError: the pickle is damaged, or would call a function; the message is a clause that follows a file
            name.

    Example:
        >>> import pickle
        >>> from zero123s.diffusion.checkpoint.safe_pickle import load_inert
        >>> load_inert(pickle.dumps({"global_step": 3, "rates": [0.5]}))
        {'global_step': 3, 'rates': [0.5]}
        >>> load_inert(pickle.dumps(print))  # a reference is harmless; calling it would be refused
        <class 'zero123s.diffusion.checkpoint.safe_pickle.print'>
    """
    try:
        _refuse_memory_bombs(data)
        return _Unpickler(io.BytesIO(data)).load()
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way: every one of them means the same to a user
        raise CheckpointError(f"its index is damaged ({type(error).__name__})") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        qualified = f"{module}.{name}"
        known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": dict,
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
        }
        if qualified in known:
            return known[qualified]
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        return type(name.rsplit(".", maxsplit=1)[-1], (_Inert,), {"qualified_name": qualified})

    def persistent_load(self, pid: Any) -> PickledStorage:
        kind, dtype, key, _location, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise CheckpointError("it holds an unsupported kind of tensor")
        return PickledStorage(key, dtype, int(numel))


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_unused: Any) -> PickledTensor:
    assert isinstance(storage, PickledStorage)
    shape, stride = tuple(map(int, shape)), tuple(map(int, stride))
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    is_inside = offset >= 0 and min((*shape, *stride), default=0) >= 0 and last < max(storage.numel, 1)
    if not (is_inside or 0 in shape):
        raise CheckpointError(f"a tensor of shape {shape} reaches outside its data")
    return PickledTensor(storage, int(offset), shape, stride)


def _rebuild_parameter(data: Any, *_unused: Any) -> Any:
    return data


def _refuse_memory_bombs(data: bytes) -> None:
    """Refuse memo indices beyond what a file of this length can fill: the C unpickler would allocate them all."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("LONG_BINPUT", "PUT") and int(argument or 0) > len(data):
            raise CheckpointError("its index is damaged (memo out of range)")
