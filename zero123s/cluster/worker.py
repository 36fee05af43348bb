"""The run of one item in any process: resumed from its checkpoint if there is one, reported step by step, recorded."""

import json
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zero123s.api import Result, prepare, run_plan
from zero123s.callbacks.run_callback import Progress, throttled
from zero123s.cluster.items import Item
from zero123s.cluster.manifest import RECORD, file_hashes, read_checked, write_checked
from zero123s.errors import UserError
from zero123s.images.io import read_image, resize_rgba, write_png_atomic
from zero123s.run.lock import FolderInUseError
from zero123s.run.plan import plan_run
from zero123s.run.resume import newest_checkpoint

SECONDS_FOR_LOCK = 60.0
"""The operating system releases the lock of a killed process after a moment."""
THUMBNAIL = 128
FOLDER = "items"


@dataclass(frozen=True)
class Setup:
    """The settings that all items of a batch share."""

    out: Path
    """Absolute; every node must see it under this name."""
    config: str
    overrides: tuple[str, ...]
    profile: str
    fingerprint: str
    cut_out: bool
    """Cut the object out of images without transparency first."""


@dataclass(frozen=True)
class Placement:
    """The resources that each worker requests from the cluster."""

    cpus: float = 1.0
    gpus: float = 0.0
    """With a fraction, several workers share one GPU."""
    workers: int = 0
    """0 = as many as fit."""
    address: str | None = None
    """Of a running cluster; None = this machine."""


def folder_of(item: Item, setup: Setup) -> Path:
    """Return an item's run folder."""
    return setup.out / FOLDER / item.name


def run_item(item: Item, setup: Setup, attempt: int, report: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Run one item and return its record, which is also saved in its folder; never raises.

    Args:
        attempt: counted from 1, for the record.
        report: is called with a few words of progress, a few times a second.
    """
    started = time.time()
    folder = folder_of(item, setup)
    fingerprint = item.fingerprint(setup.fingerprint)
    record: dict[str, Any] = {"name": item.name, "image": str(item.image), "overrides": list(item.overrides)}
    record |= {"fingerprint": fingerprint, "attempts": attempt, "process": os.getpid()}
    try:
        _rename_foreign_folder(folder, fingerprint)
        write_checked(folder / RECORD, {**record, "state": "running"})
        result = _train(item, setup, folder, throttled(report))
        files = [path for path in result.files.values() if path.is_file()]
        record |= {
            "state": "finished",
            "metrics": result.metrics,
            "seconds": round(time.time() - started, 1),
            "step": result.record.get("step"),
            "peak_memory_gb": result.record.get("peak_memory_gb"),
            "files": {k: p.resolve().relative_to(folder.resolve()).as_posix() for k, p in result.files.items()},
            "sha256": file_hashes(folder, [*files, *folder.glob("export/*")]),
        }
    except UserError as error:
        record |= {"state": "failed", "error": str(error), "final": True}
    except Exception as error:
        record |= {"state": "failed", "error": f"{type(error).__name__}: {error}", "final": False}
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
    write_checked(folder / RECORD, record)
    return record


def _rename_foreign_folder(folder: Path, fingerprint: str) -> None:
    """Rename a folder left by other settings or another image, so that its checkpoint is not resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        return
    old = read_checked(folder / RECORD)
    if old is None or old.get("fingerprint") != fingerprint:
        n = 1 + len(list(folder.parent.glob(f"{folder.name}.before*")))
        folder.rename(folder.with_name(f"{folder.name}.before{n}"))
        folder.mkdir()


def _train(item: Item, setup: Setup, folder: Path, report: Callable[[Progress], None]) -> Result:
    image = _input_image(item, setup, folder)
    places = {"data.image_path": image, "exp_root_dir": setup.out, "name": FOLDER, "tag": item.name}
    if newest_checkpoint(folder) is not None:
        places["resume"] = folder
    overrides = [*setup.overrides, *item.overrides, "use_timestamp=false"]
    overrides += [f"{key}={json.dumps(str(value))}" for key, value in places.items()]
    _, plan = plan_run(setup.config, overrides, setup.profile)
    patience = time.monotonic() + SECONDS_FOR_LOCK
    while True:
        try:
            return run_plan(plan, folder, newest_checkpoint(folder), report)
        except FolderInUseError:
            if time.monotonic() > patience:
                raise
            time.sleep(1)


def _input_image(item: Item, setup: Setup, folder: Path) -> Path:
    """Return the image for training, and save a thumbnail for the summary page."""
    loaded = read_image(item.image)
    rgba, path = loaded.rgba, item.image
    if setup.cut_out and not loaded.has_alpha:
        path = folder / "input_rgba.png"
        rgba = prepare(item.image)
        write_png_atomic(path, rgba)
    scale = THUMBNAIL / max(rgba.shape[:2])
    height, width = (max(1, round(side * scale)) for side in rgba.shape[:2])
    write_png_atomic(folder / "thumbnail.png", resize_rgba(rgba, height, width))
    return path
