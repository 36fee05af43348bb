"""Opens a file of weights as a table of memory-mapped tensors, so that only those used take memory."""

import hashlib
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zero123s.diffusion.checkpoint.safe_pickle import PickledTensor, load_inert
from zero123s.errors import CheckpointError

MAX_INDEX_BYTES = 256 * 1024**2
_SAFETENSORS_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# A whole file of the releases: 8.58 GB with averages, 15.47 GB with the optimizer's state too.
SIZES = "stable_zero123.ckpt has 8.58 GB, zero123-xl.ckpt 15.47 GB"


@dataclass
class Record:
    """A range of bytes of the file and its CRC-32 as stated by the archive; 0 = not stated."""

    start: int
    size: int
    crc: int
    is_checked: bool = False

    def is_intact(self, buffer: mmap.mmap) -> bool:
        """Tell whether the bytes have the stated checksum; computed at the first call only.

        Args:
            buffer: the mapped file.

        Returns:
            True where they do, or no checksum is stated.
        """
        if not self.is_checked and self.crc:
            with memoryview(buffer) as view:
                if zlib.crc32(view[self.start : self.start + self.size]) != self.crc:
                    return False
        self.is_checked = True
        return True


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a memory-mapped file."""

    buffer: mmap.mmap
    start: int
    """First byte in the file."""
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    record: "Record | None" = None
    """The part of the file with its own checksum that holds the tensor."""

    @property
    def n_bytes(self) -> int:
        """Bytes between the first and the last element."""
        if 0 in self.shape:
            return 0
        return (1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))) * self.dtype.itemsize

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """Read the tensor.

        Args:
            dtype: of the result; None = as stored.

        Returns:
            A copy-on-write view of the file, or a copy in another dtype that frees the view's pages.

        Raises:
            CheckpointError: the checksum of the bytes is wrong.
        """
        if self.n_bytes == 0:
            return torch.empty(self.shape, dtype=dtype or self.dtype)
        if self.record is not None and not self.record.is_intact(self.buffer):
            raise CheckpointError("the checksum of its bytes is wrong: the file is damaged, download it again")
        aligned = self.start % self.dtype.itemsize == 0
        count = self.n_bytes // self.dtype.itemsize
        if aligned:
            flat = torch.frombuffer(self.buffer, dtype=self.dtype, count=count, offset=self.start)
        else:
            flat = torch.frombuffer(bytearray(self.buffer[self.start : self.start + self.n_bytes]), dtype=self.dtype)
        view = flat.as_strided(self.shape, self.stride)
        if dtype in (None, self.dtype):
            return view
        copy = view.to(dtype)
        del flat, view
        self.release()
        return copy

    def release(self) -> None:
        """Release the memory of the pages read so far, where the operating system supports it."""
        if hasattr(mmap, "MADV_DONTNEED"):
            first = self.start // mmap.PAGESIZE * mmap.PAGESIZE
            self.buffer.madvise(mmap.MADV_DONTNEED, first, self.start + self.n_bytes - first)


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file by name, and its metadata."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


def open_weights(path: str | Path) -> WeightsFile:
    """Open a `.ckpt`, `.pt`, `.bin` or `.safetensors` file; its content decides the format, not its name.

    Args:
        path: of the file.

    Returns:
        The table of its tensors; nothing is read yet.

    Raises:
        CheckpointError: the file is missing, not a checkpoint, damaged, truncated, or unsafe.

    Example:
        >>> import tempfile, torch
        >>> from zero123s.diffusion.checkpoint.weights_file import open_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"weight": torch.ones(2)}}, f"{folder}/model.ckpt")
        ...     file = open_weights(f"{folder}/model.ckpt")
        >>> file.shapes, file.tensors["weight"].read()
        ({'weight': (2,)}, tensor([1., 1.]))
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"The checkpoint {path} does not exist or is not a file.")
    try:
        with path.open("rb") as file:
            if path.stat().st_size < 16:
                raise CheckpointError(f"only {path.stat().st_size} bytes; the download did not finish ({SIZES})")
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            head = buffer[:16]
            if head[:4] == b"PK\x03\x04":
                return WeightsFile(path, _open_torch_zip(file, buffer))
            if head[8:9] == b"{":
                tensors, metadata = _open_safetensors(path, buffer)
                return WeightsFile(path, tensors, metadata)
            raise CheckpointError(_describe_other_file(head))
    except CheckpointError as error:
        raise CheckpointError(f"Cannot load {path}: {error}.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"Cannot read {path}: {error}.") from error


def sha256_of(path: str | Path) -> str:
    """Hash a file.

    Args:
        path: of the file.

    Returns:
        SHA-256 in hexadecimal.

    Example:
        >>> import tempfile
        >>> from zero123s.diffusion.checkpoint.weights_file import sha256_of
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     sha256_of(file.name)[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _describe_other_file(head: bytes) -> str:
    if head[:1] == b"\x80":
        return "it is a bare pickle or a checkpoint from before PyTorch 1.6, which cannot be read without running it"
    if head.lstrip()[:1] == b"<":
        return "it is a web page: the download was answered with an error or a login page"
    if head.startswith(b"version https://"[:16]):
        return "it is a Git LFS pointer, not the file itself: run `git lfs pull`"
    return "it is neither a PyTorch checkpoint nor a safetensors file"


def _open_torch_zip(file: Any, buffer: mmap.mmap) -> dict[str, StoredTensor]:
    try:
        archive = zipfile.ZipFile(file)
        records = {info.filename: info for info in archive.infolist()}
        index_name = next((name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")), None)
        if index_name is None:
            raise CheckpointError("it is a zip archive but not a PyTorch checkpoint (no data.pkl)")
        if records[index_name].file_size > MAX_INDEX_BYTES or records[index_name].compress_type != zipfile.ZIP_STORED:
            raise CheckpointError("its index is too large or compressed, which PyTorch never writes")
        tree = load_inert(archive.read(index_name))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, UnicodeDecodeError, struct.error) as error:
        size = len(buffer) / 1e9
        raise CheckpointError(f"it is damaged or truncated at {size:.2f} GB ({SIZES}): download it again") from error
    weights = _find_state_dict(tree)
    prefix = index_name.removesuffix("data.pkl") + "data/"
    places: dict[str, Record] = {}
    tensors = {}
    for name, pickled in weights.items():
        key = prefix + pickled.storage.key
        if key not in places:
            start = _data_start(buffer, records.get(key), pickled)
            places[key] = Record(start, records[key].file_size, records[key].CRC)
        start = places[key].start + pickled.offset * pickled.storage.dtype.itemsize
        dtype = pickled.storage.dtype
        tensors[name] = StoredTensor(buffer, start, dtype, pickled.shape, pickled.stride, places[key])
    return tensors


def _find_state_dict(tree: Any) -> dict[str, PickledTensor]:
    for candidate in (tree.get("state_dict"), tree) if isinstance(tree, dict) else ():
        if isinstance(candidate, dict):
            found = {k: v for k, v in candidate.items() if isinstance(k, str) and isinstance(v, PickledTensor)}
            if found:
                return found
    raise CheckpointError("it holds no weights (neither at its top level nor under `state_dict`)")


def _data_start(buffer: mmap.mmap, info: zipfile.ZipInfo | None, pickled: PickledTensor) -> int:
    """Return where a stored record's bytes begin, which the archive's directory does not state."""
    needed = pickled.storage.numel * pickled.storage.dtype.itemsize
    if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < needed:
        raise CheckpointError(f"the data of storage {pickled.storage.key} is missing or too short")
    header = buffer[info.header_offset : info.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise CheckpointError("its archive is damaged")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name_length + extra_length
    if start + info.file_size > len(buffer):
        raise CheckpointError(f"it is truncated ({SIZES}): download it again")
    return start


def _open_safetensors(path: Path, buffer: mmap.mmap) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors and the metadata; the library checks that the tensors fill the file without gap or overlap."""
    start = 8 + int.from_bytes(buffer[:8], "little")
    tensors = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.offset_keys():
                part = file.get_slice(name)
                dtype, shape = _SAFETENSORS_DTYPES[part.get_dtype()], tuple(part.get_shape())
                stride = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
                tensors[name] = StoredTensor(buffer, start, dtype, shape, stride)
                start += math.prod(shape) * dtype.itemsize
            metadata = file.metadata() or {}
    except (SafetensorError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"it is damaged or truncated ({reason}): download it again") from error
    return tensors, metadata
