"""Pack rendered views into a file small enough to travel: WebP, lossless where that fits; poses and alpha always exact.

    python benchmarks/gpu/pack_renders.py data/real --out real.pack.safetensors --mb 20

reads a folder of shards (`zero123s render`) and writes one safetensors file that train_small.py reads in seconds, all views
of an object side by side in one image. Where lossless images are too many bytes it seeks the highest quality that fits, and
states how far the packed images are off.
"""

import argparse
import io
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from zero123s.errors import ImageError
from zero123s.scenes.shards import read_shard

FORMAT = "zero123s-render-pack-1"
POSES = ("elevation_deg", "azimuth_deg", "distance")
LOSSLESS = 101
"""As a quality."""
N_TRIED = 48
"""Objects whose size stands for all while the quality is sought."""


@dataclass(frozen=True)
class Renders:
    """V views each of N objects."""

    images: NDArray[np.uint8]
    """N V S S 4, straight alpha, sRGB."""
    elevation_deg: NDArray[np.float32]
    """N V; so are the next two."""
    azimuth_deg: NDArray[np.float32]
    distance: NDArray[np.float32]
    object_ids: tuple[str, ...]


def encode(views: NDArray[np.uint8], quality: int) -> bytes:
    """Encode an object's views, V S S 4, as one WebP image; alpha is exact, colours behind alpha 0 are lost."""
    strip = np.concatenate(list(views), axis=1)
    strip[strip[..., 3] == 0] = 0
    how = {"lossless": True, "quality": 50, "method": 2} if quality == LOSSLESS else {"quality": quality, "method": 4}
    buffer = io.BytesIO()
    Image.fromarray(strip).save(buffer, "WEBP", **how)
    return buffer.getvalue()


def decode(data: bytes, n_views: int) -> NDArray[np.uint8]:
    """Decode what `encode` wrote, V S S 4."""
    strip = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    return np.stack(np.split(strip, n_views, axis=1))


def read_folder(folder: Path, paths: list[Path] | None = None) -> Renders:
    """Read all shards of a folder of `zero123s render`, or some of them."""
    paths = sorted(folder.glob("shard_*.safetensors")) if paths is None else paths
    if not paths:
        raise ImageError(f"{folder}: holds no shard_*.safetensors of zero123s render.")
    shards = [read_shard(path) for path in paths]
    arrays = {name: np.concatenate([getattr(shard, name) for shard in shards]) for name in ("images", *POSES)}
    return Renders(**arrays, object_ids=tuple(name for shard in shards for name in shard.object_ids))


def read_pack(path: Path) -> Renders:
    """Read a package; raises ImageError naming a file that is none."""
    with safe_open(str(path), "numpy") as file:
        meta = file.metadata() or {}
        if meta.get("format") != FORMAT:
            raise ImageError(f"{path}: is not a package of pack_renders.py (format '{meta.get('format')}').")
        arrays = {name: file.get_tensor(name) for name in (*POSES, "webp", "sizes")}
    ends = np.cumsum(arrays["sizes"])
    blobs = [arrays["webp"][end - size : end].tobytes() for end, size in zip(ends, arrays["sizes"], strict=True)]
    n_views = arrays["elevation_deg"].shape[1]
    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(lambda data: decode(data, n_views), blobs)))
    poses = {name: arrays[name] for name in POSES}
    return Renders(images, **poses, object_ids=tuple(json.loads(meta["object_ids"])))


def write_pack(path: Path, renders: Renders, blobs: list[bytes], quality: int) -> None:
    """Write a package atomically."""
    arrays: dict[str, NDArray] = {name: np.ascontiguousarray(getattr(renders, name)) for name in POSES}
    arrays["webp"] = np.frombuffer(b"".join(blobs), np.uint8)
    arrays["sizes"] = np.array([len(blob) for blob in blobs], np.int64)
    meta = {"format": FORMAT, "quality": str(quality), "object_ids": json.dumps(renders.object_ids)}
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(arrays, partial, meta)
    os.replace(partial, path)


def quality_for(renders: Renders, limit: float) -> int:
    """Return the highest quality at which all objects are expected to fit into `limit` bytes, found on some of them."""
    tried = np.linspace(0, len(renders.images) - 1, min(N_TRIED, len(renders.images))).astype(int)

    def fits(quality: int) -> bool:
        return np.mean([len(encode(renders.images[i], quality)) for i in tried]) * len(renders.images) <= limit

    if fits(LOSSLESS):
        return LOSSLESS
    low, high = 0, 100
    while low < high:
        quality = (low + high + 1) // 2
        low, high = (quality, high) if fits(quality) else (low, quality - 1)
    return low


def on_white(images: NDArray[np.uint8]) -> NDArray:
    """Return images over white, in [0, 1]."""
    alpha = images[..., 3:].astype(np.float32) / 255
    return images[..., :3].astype(np.float32) / 255 * alpha + 1 - alpha


def foreground_psnr(packed: NDArray[np.uint8], original: NDArray[np.uint8]) -> NDArray:
    """Return the PSNR of each image on white, over its foreground only, 100 for equal ones."""
    error = np.square(on_white(packed) - on_white(original)).mean(-1)
    covered = original[..., 3] > 0
    return -10 * np.log10(np.maximum((error * covered).sum((-1, -2)) / np.maximum(covered.sum((-1, -2)), 1), 1e-10))


def main() -> int:
    """Pack the folders, and say what was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of shards")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--mb", type=float, default=20.0, help="most it may take (20)")
    args = parser.parse_args()
    renders = read_folder(args.folder)
    room = args.mb * 1e6 - sum(getattr(renders, name).nbytes for name in POSES) - len(json.dumps(renders.object_ids))
    quality = quality_for(renders, room - 100_000)
    while True:
        blobs = [encode(views, quality) for views in renders.images]
        if sum(map(len, blobs)) <= room - 10_000 or quality == 0:
            break
        quality -= 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_pack(args.out, renders, blobs, quality)
    back = read_pack(args.out)
    off = foreground_psnr(back.images, renders.images)
    assert np.array_equal(back.images[..., 3], renders.images[..., 3])
    size = args.out.stat().st_size / 1e6
    n, v = renders.images.shape[:2]
    print(
        f"{args.out}: {n} objects x {v} views, {size:.2f} MB of {args.mb:g}, "
        f"{'lossless' if quality == LOSSLESS else f'quality {quality}'}; foreground PSNR {off.mean():.2f} dB, the worst twentieth of the views {np.percentile(off, 5):.2f} dB"
    )
    return int(size > args.mb)


if __name__ == "__main__":
    sys.exit(main())
