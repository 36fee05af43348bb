"""Reads a table of mesh files with their licences, to render a collection of one's own."""

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from zero123s.errors import MeshError
from zero123s.mesh.readers import SUFFIXES
from zero123s.scenes.dataset import SceneObject

REQUIRED = ("path", "licence")
N_DONORS = 8
"""Number of following objects whose colours an object's variants may be given."""


def manifest_objects(path: Path, root: Path | None = None, split: str = "", variants: int = 0) -> list[SceneObject]:
    """Return the objects of a manifest, in its order.

    Args:
        path: CSV with the columns path and licence, and optionally creator, name, library, split and model_rotation (nine
            numbers, row by row, applied in the file's own axes); other columns are ignored.
        root: folder that its paths are relative to; None = the folder of the CSV.
        split: take only the rows with this value of `split`; empty = all.
        variants: random variants of each object (`scenes.augment`) instead of the object itself; 0 = the object.

    Raises:
        MeshError: unreadable table, missing column or file, a path that leaves the root, or no rows of that split.
    """
    rows = _rows(path)
    chosen = [(line, row) for line, row in rows if not split or row.get("split") == split]
    if not chosen:
        known = sorted({row.get("split") or "" for _, row in rows} - {""})
        raise MeshError(f"{path}: has no rows of split '{split}'; it has {', '.join(known) or 'no split'}.")
    folder = (root or path.parent).resolve()
    objects = [_object(path, line, row, folder) for line, row in chosen]
    if not variants:
        return objects
    return [_variant(objects, i, number) for i in range(len(objects)) for number in range(1, variants + 1)]


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            if missing:
                raise MeshError(f"{path}: a manifest needs the columns path and licence; {missing[0]} is missing.")
            return [(reader.line_num, {k: v or "" for k, v in row.items() if k}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeshError(f"{path}: cannot be read as a CSV ({error}).") from error


def _object(path: Path, line: int, row: dict[str, str], folder: Path) -> SceneObject:
    name = row["path"].strip()
    file = (folder / name).resolve()
    if not file.is_relative_to(folder):
        raise MeshError(f"{path}, line {line}: '{name}' lies outside '{folder}'; refused.")
    if file.suffix.lower() not in SUFFIXES or not file.is_file():
        raise MeshError(
            f"{path}, line {line}: '{name}' is not a mesh file under '{folder}'; give its folder by --root."
        )
    return SceneObject(
        object_id=str(Path(name).with_suffix("")).replace("/", "__"),
        source=str(file),
        licence=row["licence"].strip() or "unknown",
        creator=row.get("creator", "").strip(),
        title=row.get("name", "").strip(),
        library=row.get("library", "").strip(),
        rotation=_rotation(path, line, row.get("model_rotation", "")),
    )


def _rotation(path: Path, line: int, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split())
    except ValueError:
        numbers = (0.0,)
    if not numbers:
        return ()
    matrix = np.array(numbers).reshape(3, 3) if len(numbers) == 9 else np.zeros((3, 3))
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3) or np.linalg.det(matrix) < 0:
        raise MeshError(f"{path}, line {line}: model_rotation '{text}' should be nine numbers of a rotation.")
    return numbers


def _variant(objects: list[SceneObject], index: int, number: int) -> SceneObject:
    """Return variant `number` of an object, which may take the colours of one of the next objects of the collection.

    Of the next ones, because those are read soon anyway.
    """
    object_id = f"{objects[index].object_id}~{number:03d}"
    ahead = 1 + int.from_bytes(hashlib.sha256(object_id.encode()).digest()[:8], "little") % N_DONORS
    donor = objects[(index + ahead) % len(objects)]
    return replace(objects[index], object_id=object_id, variant=number, palette_from=donor.source)
