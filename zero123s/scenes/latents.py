"""Latents and image embeddings of rendered views, computed once: one safetensors file for each shard of renders."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from zero123s.errors import ImageError
from zero123s.scenes.original_layout import OriginalFolder
from zero123s.scenes.shards import ShardFolder

FORMAT = "zero123s-latents-2"
ARRAYS = ("latents", "embeddings")

Encode = Callable[[torch.Tensor], dict[str, torch.Tensor]]
"""Images B 3 S S in [0, 1] on white -> "latents" (unscaled, B C h w) and "embeddings" (B N D)."""


def cache_latents(
    views: ShardFolder | OriginalFolder,
    out_dir: Path,
    encode: Encode,
    model_sha256: str,
    progress: Callable[[int], object] = int,
) -> None:
    """Encode every view into `out_dir`/<name of its shard>, float16; files already there are kept.

    Args:
        views: the renders.
        encode: the autoencoder.
        model_sha256: written into each file, so that latents of another autoencoder are never mixed in.
        progress: called with the number of objects of every finished file.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    for shard, path in enumerate(views.paths):
        objects = [i for i, place in enumerate(views.place) if place[0] == shard]
        target = out_dir / path.name
        if not _is_cache_of(target, model_sha256):
            encoded = [_encode_object(views.images(i), encode) for i in objects]
            meta = {"format": FORMAT, "model_sha256": model_sha256, "views": json.dumps(str(path.name))}
            partial = target.with_suffix(f".{os.getpid()}.partial")
            # safetensors writes an array's memory as it lies: it must be in order
            save_file({n: np.ascontiguousarray(np.stack([e[n] for e in encoded])) for n in ARRAYS}, partial, meta)
            os.replace(partial, target)
        progress(len(objects))


def _encode_object(images: NDArray[np.uint8], encode: Encode) -> dict[str, NDArray[np.float16]]:
    rgba = torch.from_numpy(images).float() / 255
    rgb = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).permute(0, 3, 1, 2)
    with torch.no_grad():
        return {name: value.to(torch.float16).cpu().numpy() for name, value in encode(rgb).items()}


def _is_cache_of(path: Path, model_sha256: str) -> bool:
    if not path.is_file():
        return False
    try:
        with safe_open(str(path), "numpy") as file:
            meta = file.metadata() or {}
            return meta.get("format") == FORMAT and meta.get("model_sha256") == model_sha256
    except (OSError, SafetensorError):
        return False


class LatentFolder:
    """Cached latents of rendered views, read row by row.

    Args:
        folder: what `cache_latents` wrote.
        views: the renders they belong to.

    Raises:
        ImageError: a file is missing or belongs to other renders.
    """

    def __init__(self, folder: Path, views: ShardFolder | OriginalFolder) -> None:
        self.place = views.place
        self._open = [_open_latents(folder / path.name) for path in views.paths]
        hashes = {file.metadata()["model_sha256"] for file in self._open}
        if len(hashes) != 1:
            raise ImageError(f"{folder}: holds latents of {len(hashes)} autoencoders; make it again.")
        self.model_sha256 = hashes.pop()
        counts = [sum(1 for shard, _ in views.place if shard == n) for n in range(len(views.paths))]
        for path, file, count in zip(views.paths, self._open, counts, strict=True):
            if file.get_slice("latents").get_shape()[0] != count:
                raise ImageError(f"{folder / path.name}: holds another number of objects than {path}; make it again.")

    def latents(self, index: int) -> NDArray[np.float16]:
        """Return the latents of all views of one object, V C h w."""
        return self._read("latents", index)

    def embeddings(self, index: int) -> NDArray[np.float16]:
        """Return the image embeddings of all views of one object, V N D."""
        return self._read("embeddings", index)

    def _read(self, name: str, index: int) -> NDArray[np.float16]:
        shard, row = self.place[index]
        return self._open[shard].get_slice(name)[row : row + 1][0]


def _open_latents(path: Path) -> Any:
    try:
        file = safe_open(str(path), "numpy").__enter__()
    except (OSError, SafetensorError) as error:
        raise ImageError(
            f"{path}: no cached latents ({error}); make them with `zero123s cache-latents`, or leave data.latents empty."
        ) from error
    if (file.metadata() or {}).get("format") != FORMAT:
        raise ImageError(f"{path}: is not a file of cached latents.")
    return file
