"""Reads and writes the folder layout of the original Zero123 training data.

`<root>/<uid>/000.png` (RGBA) and `000.npy`, the 3x4 matrix from world to Blender camera axes (x right, y up, looking
along -z), and `valid_paths.json`, a list of uids; the original trains on all but the last 1 % of it.
"""

import io
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from zero123s.errors import ImageError
from zero123s.images.io import write_png_atomic
from zero123s.ops.cameras import orbit_cameras
from zero123s.scenes.shards import Shard

logger = logging.getLogger(__name__)

LATENTS_PER_FILE = 200


def write_original(shards: Iterable[Shard], root: Path) -> Path:
    """Write shards as the original layout and return valid_paths.json; objects already listed there stay listed."""
    listed = read_valid_paths(root) if (root / "valid_paths.json").exists() else []
    for shard in shards:
        for row, object_id in enumerate(shard.object_ids):
            folder = _inside(root, object_id)
            folder.mkdir(parents=True, exist_ok=True)
            matrices = world_to_camera(shard, row)
            for view, image in enumerate(shard.images[row]):
                write_png_atomic(folder / f"{view:03d}.png", image.astype(np.float32) / 255)
                np.save(folder / f"{view:03d}.npy", matrices[view])
            if object_id not in listed:
                listed.append(object_id)
    root.mkdir(parents=True, exist_ok=True)
    partial = root / "valid_paths.json.tmp"
    partial.write_text(json.dumps(listed), encoding="utf-8")
    os.replace(partial, root / "valid_paths.json")
    return root / "valid_paths.json"


def world_to_camera(shard: Shard, row: int) -> NDArray[np.float64]:
    """Return the matrices [R | t] of all views of one object, V 3 4."""
    elevation, azimuth, distance = (
        torch.from_numpy(np.asarray(a[row], np.float32))
        for a in (shard.elevation_deg, shard.azimuth_deg, shard.distance)
    )
    c2w = orbit_cameras(elevation, azimuth, distance).c2w.numpy().astype(np.float64)
    rotation = c2w[:, :3, :3].transpose(0, 2, 1)
    return np.concatenate([rotation, -rotation @ c2w[:, :3, 3:]], axis=-1)


def read_valid_paths(root: Path) -> list[str]:
    """Return the uids of a dataset; raises ImageError where valid_paths.json is missing or no list of names."""
    path = root / "valid_paths.json"
    try:
        uids = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read as a list of object names ({error}).") from error
    if not isinstance(uids, list) or not all(isinstance(uid, str) for uid in uids):
        raise ImageError(f"{path}: should be a JSON list of object names.")
    return uids


class OriginalFolder:
    """All objects of a dataset in the original's layout, read object by object; what `ShardFolder` is for shards.

    Objects without a folder, or with fewer views than most, are left out, as the original's loader skips them; of more
    views the first are taken. The matrices of all objects are read at the start.

    Args:
        folder: where valid_paths.json lies.

    Raises:
        ImageError: no valid_paths.json, no object with images, or an unreadable matrix.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        listed = [(uid, _view_paths(self.folder, uid)) for uid in read_valid_paths(self.folder)]
        counts = Counter(len(paths) for _, paths in listed if paths)
        if not counts:
            raise ImageError(f"{self.folder}: none of the {len(listed)} objects of valid_paths.json has images there.")
        n_views = counts.most_common(1)[0][0]
        self._views = [paths[:n_views] for _, paths in listed if len(paths) >= n_views]
        if skipped := len(listed) - len(self._views):
            logger.warning("note: %s: left out %d of %d objects with fewer than %d views.", self.folder, skipped,
                           len(listed), n_views)  # fmt: skip
        angles = [_angles(paths) for paths in self._views]
        self.elevation_deg, self.azimuth_deg, self.distance = (
            np.stack([a[i] for a in angles]).astype(np.float32) for i in range(3)
        )
        self.size = int(_read_images(self._views[0][:1]).shape[1])
        self.place = [divmod(i, LATENTS_PER_FILE) for i in range(len(self._views))]
        n_files = self.place[-1][0] + 1
        self.paths = [self.folder / f"objects_{number:05d}.safetensors" for number in range(n_files)]
        """Names of files of cached latents, one for every LATENTS_PER_FILE objects; nothing is written here."""

    def __len__(self) -> int:
        return len(self._views)

    def images(self, index: int) -> NDArray[np.uint8]:
        """Return all views of one object, V S S 4."""
        images = _read_images(self._views[index])
        if images.shape[1:3] != (self.size, self.size):
            raise ImageError(
                f"{self._views[index][0].parent}: its images have {images.shape[2]} x {images.shape[1]} pixels, "
                f"those of the first object {self.size} x {self.size}; one folder holds one size."
            )
        return images


def _view_paths(root: Path, uid: str) -> list[Path]:
    return sorted(_inside(root, uid).glob("[0-9][0-9][0-9].png"))


def _read_images(paths: list[Path]) -> NDArray[np.uint8]:
    """Return images of one size, V H W 4."""
    from PIL import Image

    images = []
    for path in paths:
        try:
            with Image.open(path, formats=("PNG",)) as image:
                images.append(np.asarray(image.convert("RGBA")))
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageError(f"{path}: the image cannot be read ({error}).") from error
        if images[-1].shape != images[0].shape:
            raise ImageError(f"{path}: has not the size of the other images of its object.")
    return np.stack(images)


def _angles(paths: list[Path]) -> tuple[NDArray, NDArray, NDArray]:
    """Return elevation, azimuth (degrees) and distance of the cameras, V each, from the matrices next to the images."""
    positions = []
    for path in paths:
        try:
            matrix = np.load(io.BytesIO(path.with_suffix(".npy").read_bytes()), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ImageError(f"{path.with_suffix('.npy')}: the matrix cannot be read ({error}).") from error
        if matrix.shape != (3, 4) or not np.isfinite(matrix).all():
            raise ImageError(f"{path}: needs a finite 3x4 matrix in the .npy file of the same name.")
        positions.append(-matrix[:, :3].T @ matrix[:, 3])
    at = np.stack(positions)
    distance = np.linalg.norm(at, axis=-1)
    elevation = np.rad2deg(np.arcsin(np.clip(at[:, 2] / np.maximum(distance, 1e-9), -1, 1)))
    return elevation, np.rad2deg(np.arctan2(at[:, 1], at[:, 0])) % 360, distance


def _inside(root: Path, uid: str) -> Path:
    folder = root / uid
    if not uid or not folder.resolve().is_relative_to(root.resolve()) or folder.resolve() == root.resolve():
        raise ImageError(f"{root}: object name '{uid}' leads out of the dataset's folder; refused.")
    return folder
