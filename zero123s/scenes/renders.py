"""Opens a folder of rendered views in either layout."""

from pathlib import Path

from zero123s.errors import ImageError
from zero123s.scenes.original_layout import OriginalFolder
from zero123s.scenes.shards import ShardFolder


def open_renders(folder: str | Path) -> ShardFolder | OriginalFolder:
    """Return the objects of a folder: shards of `zero123s render`, or the original Zero123's layout.

    Raises:
        ImageError: the folder is missing, empty or holds neither, or what it holds is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ImageError(
            f"{path}: {'is not a folder' if path.exists() else 'does not exist'}; give a folder of renders."
        )
    if next(path.glob("shard_*.safetensors"), None):
        return ShardFolder(path)
    if (path / "valid_paths.json").is_file():
        return OriginalFolder(path)
    if next(path.iterdir(), None) is None:
        raise ImageError(f"{path}: is empty; give a folder that holds renders (see zero123s render --help).")
    raise ImageError(
        f"{path}: holds no renders, neither shard_*.safetensors of zero123s render nor valid_paths.json of the original "
        "Zero123's layout; give the folder that holds one of them."
    )
