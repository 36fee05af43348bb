"""Detects broken renders, and draws contact sheets of many."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zero123s.errors import ImageError
from zero123s.images.io import write_png_atomic
from zero123s.scenes.shards import Shard, read_shard

MIN_COVERAGE = 0.002
"""Share of the frame below which a view counts as empty."""
MIN_SPREAD = 1.0 / 255
"""Standard deviation of the colours below which a view counts as one colour."""


class BrokenView(NamedTuple):
    """An image that should not be trained on."""

    object_id: str
    view: int
    reason: str


def broken_reason(rgba: NDArray) -> str | None:
    """Return why an image (S S 4; uint8, or floats in [0, 1]) is broken, or None where it is sound.

    Reasons: `nan`, `empty`, `touches the border`, `one colour`.
    """
    image = rgba / 255 if rgba.dtype == np.uint8 else rgba
    if not np.isfinite(image).all():
        return "nan"
    alpha = image[..., 3]
    if (alpha > 0.5).mean() < MIN_COVERAGE:
        return "empty"
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    if border.max() > 0:
        return "touches the border"
    if image[alpha > 0.5][:, :3].std(axis=0).max() < MIN_SPREAD:
        return "one colour"
    return None


def find_broken(shard: Shard) -> list[BrokenView]:
    """Return the broken views of a shard."""
    found = []
    for object_id, views in zip(shard.object_ids, shard.images, strict=True):
        for view, image in enumerate(views):
            reason = broken_reason(image)
            if reason is not None:
                found.append(BrokenView(object_id, view, reason))
    return found


def shard_files(folder: Path) -> list[Path]:
    """Return the shards of a folder in order; raises ImageError where there are none."""
    files = sorted(folder.glob("shard_*.safetensors"))
    if not files:
        raise ImageError(f"{folder}: has no shard_*.safetensors; render some first.")
    return files


def check_folder(folder: Path) -> Iterator[tuple[Path, list[BrokenView]]]:
    """Yield every shard of a folder with its broken views."""
    for path in shard_files(folder):
        yield path, find_broken(read_shard(path))


def contact_sheet(rows: Sequence[NDArray[np.uint8]], columns: int = 1) -> NDArray[np.float32]:
    """Return images on white: each item (V S S 4) side by side, `columns` items to a line; H W 3 in [0, 1]."""
    if not rows:
        raise ImageError("a contact sheet needs at least one object.")
    strips = []
    for views in rows:
        image = np.concatenate(list(views.astype(np.float32) / 255), axis=1)
        strips.append(image[..., :3] * image[..., 3:] + 1 - image[..., 3:])
    blank = np.ones_like(strips[0])
    strips += [blank] * (-len(strips) % columns)
    return np.concatenate([np.concatenate(strips[i : i + columns], 1) for i in range(0, len(strips), columns)])


def write_contact_sheet(folder: Path, path: Path, objects: int = 60, views: int = 4, columns: int = 5) -> Path:
    """Write a contact sheet of objects spread evenly over the shards of `folder`, `views` views each."""
    files = shard_files(folder)
    share = -(-objects // len(files))
    rows: list[NDArray[np.uint8]] = []
    for file in files:
        images = read_shard(file).images
        chosen = np.linspace(0, len(images) - 1, min(share, len(images))).astype(int) if len(images) else []
        rows += [images[i, :views] for i in chosen]
    return write_png_atomic(path, contact_sheet(rows[:objects], columns))
