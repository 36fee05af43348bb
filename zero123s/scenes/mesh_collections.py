"""Finds the mesh files of a folder, an Objaverse download or a list of uids."""

import gzip
import json
from pathlib import Path
from typing import Any

from zero123s.errors import MeshError
from zero123s.mesh.readers import SUFFIXES
from zero123s.scenes.dataset import SceneObject


def mesh_objects(paths: list[Path], uids: Path | None = None, annotations: Path | None = None) -> list[SceneObject]:
    """Return one object per mesh file of the given files and folders (searched through), ordered by id.

    Args:
        paths: mesh files, or folders such as Objaverse's `glbs/`.
        uids: text file with one uid a line; only files named <uid>.<suffix> are taken, and all must be there.
        annotations: Objaverse's annotations (json or json.gz: uid -> {"license": ...}) for the licences.

    Raises:
        MeshError: nothing found, a uid without a file, two files of one name, or an unreadable list.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise MeshError(f"{path}: does not exist.")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() not in SUFFIXES or not file.is_file():
                continue
            identifier = file.stem if path.is_file() else str(file.relative_to(path).with_suffix("")).replace("/", "__")
            identifier = file.stem if uids else identifier
            if identifier in found and found[identifier] != file:
                raise MeshError(f"{file} and {found[identifier]} have the same name; rename one.")
            found[identifier] = file
    if uids is not None:
        requested = _lines(uids)
        missing = [uid for uid in requested if uid not in found]
        if missing:
            raise MeshError(f"{uids}: {len(missing)} of {len(requested)} uids have no mesh file, first '{missing[0]}'.")
        found = {uid: found[uid] for uid in requested}
    if not found:
        raise MeshError(f"no mesh files ({', '.join(SUFFIXES)}) under {', '.join(map(str, paths))}.")
    licences = _annotations(annotations) if annotations else {}
    return [SceneObject(uid, str(found[uid]), _licence(licences.get(uid))) for uid in sorted(found)]


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise MeshError(f"{path}: cannot be read as a list of uids ({error}).") from error
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def _annotations(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        tree = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, ValueError, EOFError) as error:
        raise MeshError(f"{path}: cannot be read as annotations ({error}).") from error
    if not isinstance(tree, dict):
        raise MeshError(f"{path}: annotations should map uids to their records.")
    return tree


def _licence(record: Any) -> str:
    value = record.get("license") if isinstance(record, dict) else record
    return value if isinstance(value, str) else "unknown"
