"""Records of the items, one file in each item's folder and all of them in OUT/manifest.json, with checksums."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zero123s.diffusion.checkpoint.weights_file import sha256_of
from zero123s.runtime.files import write_text

RECORD = "item.json"
MANIFEST = "manifest.json"


def checksum(content: dict[str, Any]) -> str:
    """Return the hash of everything in `content` except its "checksum"."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_checked(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with its checksum, atomically; raises OutputError."""
    content = json.loads(json.dumps(content))  # what a reader will see: tuples are lists
    write_text(path, json.dumps({**content, "checksum": checksum(content)}, indent=1) + "\n")


def read_checked(path: Path) -> dict[str, Any] | None:
    """Return JSON whose checksum is correct, without the checksum; None otherwise."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.pop("checksum", None) != checksum(content):
        return None
    return content


def file_hashes(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Map each path below `folder` to its SHA-256."""
    return {path.resolve().relative_to(folder.resolve()).as_posix(): sha256_of(path) for path in sorted(set(files))}


def finished_record(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return an item's record if it finished with these settings and all its files are unchanged."""
    record = read_checked(folder / RECORD)
    if record is None or record.get("state") != "finished" or record.get("fingerprint") != fingerprint:
        return None
    for name, digest in record["sha256"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            return None
    return record
