"""Builds and loads hooks.cpp, which lets a torch without CUDA believe that there is one device.

torch looks for its CUDA hooks while it is imported, so `load()` comes before the first `import torch` of a process.
"""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("hooks.cpp")
_loaded = False


def why_not() -> str | None:
    """Return why there can be no pretended device here; None = there can be one."""
    if shutil.which("g++") is None:
        return "needs g++"
    if (_torch_dir() / "lib" / "libtorch_cuda.so").exists():
        return "this torch has CUDA of its own"
    return None


def is_loaded() -> bool:
    """Return whether this process has a pretended device."""
    return _loaded


def load() -> None:
    """Load the hooks, building them first (7 seconds, once per version of torch and of the source)."""
    global _loaded  # noqa: PLW0603  a process has one torch
    if "torch" in sys.modules:
        raise ImportError("the hooks of the pretended device must be loaded before torch is imported")
    if (reason := why_not()) is not None:
        raise ImportError(f"no pretended device: {reason}")
    version = (_torch_dir() / "version.py").read_bytes()
    key = hashlib.sha256(SOURCE.read_bytes() + version + str(_torch_dir()).encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"zero123s_pretend_{os.getuid()}_{key}.so"
    if not library.exists():
        _build(library)
    ctypes.CDLL(str(library))
    _loaded = True


def _build(library: Path) -> None:
    """Compile under another name first: several processes may build at once."""
    torch_dir, partial = _torch_dir(), library.with_suffix(f".{os.getpid()}")
    include, lib = torch_dir / "include", torch_dir / "lib"
    words = ["g++", "-O0", "-fPIC", "-shared", "-std=c++20", f"-I{include}", f"-I{include}/torch/csrc/api/include"]
    words += [str(SOURCE), "-o", str(partial), f"-L{lib}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{lib}"]
    subprocess.run(words, check=True)
    partial.replace(library)


def _torch_dir() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
