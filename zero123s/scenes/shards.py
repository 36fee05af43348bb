"""Shards of rendered views: one safetensors file per group of objects, written atomically."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from zero123s.errors import ImageError

FORMAT = "zero123s-renders-1"
_ARRAYS = ("images", "elevation_deg", "azimuth_deg", "distance", "fovy_deg")


@dataclass(frozen=True)
class Shard:
    """V views each of N objects."""

    images: NDArray[np.uint8]
    """N V S S 4, straight alpha, sRGB."""
    elevation_deg: NDArray[np.float32]
    """N V."""
    azimuth_deg: NDArray[np.float32]
    """N V."""
    distance: NDArray[np.float32]
    """N V."""
    fovy_deg: NDArray[np.float32]
    """N V."""
    object_ids: tuple[str, ...]
    records: tuple[dict[str, Any], ...]
    """Per object: object_id, source, licence, kind, sha256 of its pixels."""
    failures: tuple[dict[str, str], ...] = ()
    """Objects left out: object_id, source, error."""


def shard_path(folder: Path, index: int) -> Path:
    """Return the file of shard `index`."""
    return folder / f"shard_{index:05d}.safetensors"


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard atomically: an interrupted run leaves no partial file."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    meta = {
        "format": FORMAT,
        "object_ids": json.dumps(shard.object_ids),
        "records": json.dumps(shard.records),
        "failures": json.dumps(shard.failures),
    }
    save_file({name: np.ascontiguousarray(getattr(shard, name)) for name in _ARRAYS}, partial, meta)
    os.replace(partial, path)


def read_shard(path: str | Path) -> Shard:
    """Return a shard; raises ImageError naming a file that is missing, damaged or of another kind."""
    try:
        with safe_open(str(path), "numpy") as file:
            meta = file.metadata() or {}
            if meta.get("format") != FORMAT:
                raise ImageError(
                    f"{path}: is not a shard of renders (format '{meta.get('format')}', expected '{FORMAT}')."
                )
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
    except (OSError, SafetensorError) as error:
        raise ImageError(f"{path}: cannot be read as a shard of renders ({error}); render it again.") from error
    lists = {name: tuple(json.loads(meta[name])) for name in ("object_ids", "records", "failures")}
    return Shard(
        images=arrays["images"],
        elevation_deg=arrays["elevation_deg"],
        azimuth_deg=arrays["azimuth_deg"],
        distance=arrays["distance"],
        fovy_deg=arrays["fovy_deg"],
        object_ids=lists["object_ids"],
        records=lists["records"],
        failures=lists["failures"],
    )


class ShardFolder:
    """All objects of a folder of shards, read row by row through memory maps.

    Args:
        folder: what `zero123s render` wrote.

    Raises:
        ImageError: no shards there, or one of them is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.paths = sorted(self.folder.glob("shard_*.safetensors"))
        if not self.paths:
            raise ImageError(f"{self.folder}: holds no shards of rendered views.")
        self._open = [_open_shard(path) for path in self.paths]
        shapes = [tuple(file.get_slice("images").get_shape()[1:3]) for file in self._open]
        for path, (views, size) in zip(self.paths, shapes, strict=True):
            if (views, size) != shapes[0]:
                raise ImageError(
                    f"{path}: holds {views} views of {size} pixels of each object, and {self.paths[0].name} {shapes[0][0]} of "
                    f"{shapes[0][1]}; one folder holds one kind."
                )
        poses = [{n: f.get_tensor(n) for n in _ARRAYS[1:]} for f in self._open]
        self.elevation_deg, self.azimuth_deg, self.distance, self.fovy_deg = (
            np.concatenate([p[name] for p in poses]) for name in _ARRAYS[1:]
        )
        counts = [len(p["elevation_deg"]) for p in poses]
        self.place = [(shard, row) for shard, count in enumerate(counts) for row in range(count)]
        """Per object: which shard, which row."""
        self.size = int(shapes[0][1])

    def __len__(self) -> int:
        return len(self.place)

    def images(self, index: int) -> NDArray[np.uint8]:
        """Return all views of one object, V S S 4."""
        shard, row = self.place[index]
        return self._open[shard].get_slice("images")[row : row + 1][0]


def _open_shard(path: Path) -> Any:
    """Map one shard; raises ImageError as `read_shard` does."""
    try:
        file = safe_open(str(path), "numpy").__enter__()
    except (OSError, SafetensorError) as error:
        raise ImageError(f"{path}: cannot be read as a shard of renders ({error}); render it again.") from error
    if (file.metadata() or {}).get("format") != FORMAT:
        raise ImageError(f"{path}: is not a shard of renders; move it out of the folder.")
    return file
