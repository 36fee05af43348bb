"""The items of a batch: a folder of images, a list of them, or a CSV file with settings for each."""

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zero123s.config.load import read_overrides
from zero123s.config.options import LARGEST
from zero123s.config.yaml_files import parse_yaml
from zero123s.data.single_image import check_elevation
from zero123s.errors import ConfigError
from zero123s.images.formats import AVIF_SUFFIXES, HEIF_ADVICE, HEIF_SUFFIXES, readable_suffixes
from zero123s.registry import nearest
from zero123s.run.folder import shell_safe
from zero123s.runtime.files import user_path

COMPANIONS = ("_depth", "_normal", "_steps")
"""Suffixes of files that belong to an image X or X_rgba and are not items themselves."""
SEPARATORS = ",;\t|"
MAX_NAMED = 8
"""Files that are left out are named up to this number, and counted."""
COLUMNS = ("image", "name", "elevation", "seed", "overrides")
COLUMN_KEYS = {"elevation": "data.default_elevation_deg", "seed": "seed"}


@dataclass(frozen=True)
class Item:
    """One image and the settings of its run."""

    name: str
    """Its folder below OUT/items; unique in a batch."""
    image: Path
    """Absolute."""
    overrides: tuple[str, ...] = ()
    """Overrides of this item only."""

    def fingerprint(self, settings: str) -> str:
        """Return a hash of everything the result depends on: the batch's settings, the item's own and the image."""
        image_hash = hashlib.sha256(self.image.read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps([settings, sorted(self.overrides), image_hash]).encode()).hexdigest()


def read_items(source: Path) -> list[Item]:
    """Return the items that a folder, a list (.txt, one image per line) or a .csv file names, in order.

    A CSV has a header: `image`, and optionally `name`, `elevation` (degrees), `seed`, `overrides` (as on a command
    line) and any key of the YAML file that has a dot. Images are found relative to the file that names them.

    Raises:
        ConfigError: nothing there, an image that is missing, an unknown column, a setting that cannot be read.
    """
    if source.is_dir():
        rows = [(p, "", ()) for p in _files_of(source) if p.suffix.lower() in readable_suffixes()]
    elif source.suffix.lower() in (".csv", ".tsv"):
        rows = _csv_rows(source)
    elif source.suffix.lower() in readable_suffixes():
        rows = [(source, "", ())]
    else:
        lines = [line.strip() for line in _text_of(source).splitlines()]
        rows = [(source.parent / user_path(line), "", ()) for line in lines if line and not line.startswith("#")]
    if not rows:
        raise ConfigError(
            f"'{source}' names no image; give a folder with some, a list, or a CSV with a column 'image'."
            f"{skipped_note(source)}"
        )
    return _named(source, rows)


def skipped_note(source: Path) -> str:
    """Return a line that counts and names the skipped files of a folder; empty if there are none.

    That is: files that are not images by name, and folders that hold images.
    """
    if not source.is_dir():
        return ""
    others = [p for p in _files_of(source) if p.suffix.lower() not in readable_suffixes()]
    folders = [p for p in sorted(source.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    folders = [p for p in folders if any(f.suffix.lower() in readable_suffixes() for f in _files_of(p))]
    line = ""
    for kind, paths in (("file", others), ("folder", folders)):
        if paths:
            named = ", ".join(p.name for p in paths[:MAX_NAMED]) + (", ..." if len(paths) > MAX_NAMED else "")
            line += f" {len(paths)} {kind}{'s' * (len(paths) > 1)} left out: {named}."
    phones = [p for p in others if p.suffix.lower() in (*HEIF_SUFFIXES, *AVIF_SUFFIXES)]
    if phones:
        line += f" {len(phones)} of them HEIC or AVIF: {HEIF_ADVICE}."
    return line


def _files_of(folder: Path) -> list[Path]:
    """Return the visible files of a folder, without companions of an image."""
    files = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    stems = {p.stem for p in files}
    belonging = {
        f"{stem.removesuffix(tail)}{ending}" for stem in stems for tail in ("", "_rgba") for ending in COMPANIONS
    }
    return sorted(p for p in files if p.stem not in belonging)


def _check_seed(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"seed: expected a whole number, got {value!r}.")
    if abs(value) > LARGEST:
        raise ConfigError(f"seed: a number of {len(str(abs(value)))} digits is out of range.")


def _named(source: Path, rows: Sequence[tuple[Path, str, tuple[str, ...]]]) -> list[Item]:
    items: dict[str, Item] = {}
    for image, requested_name, overrides in rows:
        if not image.is_file():
            raise ConfigError(f"'{image}' is not a file, but '{source}' names it.")
        name = base = shell_safe(requested_name or image.stem)
        count = 1
        while name.lower() in items:  # file systems may not tell capitals apart
            count += 1
            name = f"{base}-{count}"
        items[name.lower()] = Item(name, image.resolve(), overrides)
    return list(items.values())


def _text_of(source: Path) -> str:
    try:
        content = source.read_bytes()
        is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # what spreadsheets call Unicode text
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"'{source}' is not text in UTF-8; save the list as CSV (UTF-8).") from error
    except OSError as error:
        raise ConfigError(f"'{source}' cannot be read as a list of images ({error}).") from error


def _csv_rows(source: Path) -> list[tuple[Path, str, tuple[str, ...]]]:
    text = _text_of(source)
    n_above = 2
    if text.startswith("sep="):  # a line for Excel
        text, n_above = text.partition("\n")[2], 3
    # Spreadsheets write ; where the decimal point is a comma.
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text), delimiter=separator)
    columns = [c.strip() if "." in c else c.strip().lower() for c in reader.fieldnames or []]
    reader.fieldnames = columns
    for column in columns:
        if column not in COLUMNS and "." not in column:
            raise ConfigError(f"{source}: unknown column '{column}'.{nearest(column, list(COLUMNS))}")
    if "image" not in columns:
        raise ConfigError(f"{source}: there is no column 'image' in its first line.")
    rows = []
    for number, row in enumerate(reader, start=n_above):
        if None in row or None in row.values():
            raise ConfigError(f"{source}, line {number}: has not {len(columns)} fields as the first line has.")
        cells = {key: value.strip() for key, value in row.items() if value.strip()}
        if "image" not in cells:
            raise ConfigError(f"{source}, line {number}: the column 'image' is empty.")
        if separator != "," and "elevation" in cells:
            cells["elevation"] = cells["elevation"].replace(",", ".")
        # Quotes that are left are the text's own, not the shell's.
        cells_as_typed = {c: json.dumps(v, ensure_ascii=False) if v[0] in "\"'" else v for c, v in cells.items()}
        overrides = [f"{COLUMN_KEYS.get(c, c)}={v}" for c, v in cells_as_typed.items() if c in COLUMN_KEYS or "." in c]
        try:
            overrides += shlex.split(cells.get("overrides", ""))
            given = {word.key: word.text for word in read_overrides(overrides)}
            for key, check in (("data.default_elevation_deg", check_elevation), ("seed", _check_seed)):
                if key in given:
                    check(parse_yaml(given[key], key)[0])
        except (ConfigError, ValueError) as error:
            message = str(error)
            for column, key in COLUMN_KEYS.items():
                message = message.replace(f"{key}:", f"column '{column}':", 1) if column in cells else message
            raise ConfigError(f"{source}, line {number}: {message}") from error
        rows.append((source.parent / user_path(cells["image"]), cells.get("name", ""), tuple(overrides)))
    return rows
