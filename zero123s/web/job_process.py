"""The process of a job: `python -m zero123s.web.job_process FOLDER`; ends when the server is gone."""

import json
import os
import signal
import sys
import threading
import traceback
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from zero123s.errors import UserError
from zero123s.run.console import limit_openmp_spin
from zero123s.runtime.files import replacing, write_text

PROGRESS = "progress.jsonl"
RUN = "run"
PICTURES = ("texture", "texture_normal", "normal_map")
ZIPPED = {"obj": ("mtl", *PICTURES), "gltf": ("bin", *PICTURES)}
"""Files that mean nothing without those that they name: all are in one .zip."""
UNREPORTED = frozenset(kind for others in ZIPPED.values() for kind in others)


def main(folder: Path) -> int:
    """Run a job, save its result in the folder and return an exit code."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    from zero123s.api import RunInterrupted

    try:
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        found = {"mesh": make_mesh, "draw": generate_image}[job["kind"]](folder, job["task"])
        outcome = {"state": "finished", **found}
    except (RunInterrupted, KeyboardInterrupt):
        outcome = {"state": "cancelled"}
    except UserError as error:
        outcome = {"state": "failed", "error": str(error)}
    except Exception as error:
        traceback.print_exc()
        outcome = {"state": "failed", "error": f"{type(error).__name__}: {error}"}
    write_text(folder / "outcome.json", json.dumps(outcome, indent=1) + "\n")
    return 0 if outcome["state"] == "finished" else 1


def make_mesh(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Train as launch.py does and score the mesh; returns scores and downloads by name.

    Args:
        task: "config", "words" and "profile", as for `plan_run`.
    """
    from zero123s.api import run_plan
    from zero123s.callbacks.run_callback import throttled
    from zero123s.evaluate.evaluation import choose_network, evaluate_target
    from zero123s.run.console import set_up_logging
    from zero123s.run.plan import plan_run

    set_up_logging(verbose=False)
    run_dir = folder / RUN
    _, plan = plan_run(task["config"], task["words"], task["profile"])
    report = partial(_append, folder / PROGRESS)
    result = run_plan(plan, run_dir, None, throttled(report))
    downloads = {kind: path for kind, path in result.files.items() if kind not in UNREPORTED and path.is_file()}
    for kind in ZIPPED.keys() & downloads.keys():
        downloads[kind] = _zipped(folder, kind, result.files)
    if result.mesh is not None:
        report({"stage": "report"})
        evaluate_target(run_dir, network=choose_network(None, None))
        downloads["report"] = run_dir / "report.html"
    inside = {kind: path.resolve().relative_to(folder.resolve()).as_posix() for kind, path in downloads.items()}
    return {"metrics": result.metrics, "downloads": inside, "step": result.record.get("step")}


def generate_image(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Draw an object from a sentence; returns the image by name.

    Args:
        task: "prompt", "seed", "config" and "words" for the settings of data.text_to_image.
    """
    import torch

    from zero123s.images.io import write_png_atomic
    from zero123s.preprocess.text_to_image import generate_candidates
    from zero123s.run.plan import plan_run

    _append(folder / PROGRESS, {"stage": "draw"})
    _, plan = plan_run(task["config"], task["words"], "none")
    settings: Any = plan.experiment.data
    drawn = generate_candidates(
        task["prompt"], settings.text_to_image, task["seed"], "cuda" if torch.cuda.is_available() else "cpu"
    )
    write_png_atomic(folder / "drawn.png", drawn.candidates[drawn.chosen].rgb)
    write_png_atomic(folder / "candidates.png", drawn.contact_sheet)
    return {"downloads": {"drawn": "drawn.png", "candidates": "candidates.png"}}


def _append(path: Path, line: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _zipped(folder: Path, kind: str, files: dict[str, Path]) -> Path:
    path = folder / f"model_{kind}.zip"
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        # Two names may mean one image.
        for file_path in dict.fromkeys(files[one] for one in (kind, *ZIPPED[kind]) if one in files):
            if file_path.is_file():
                archive.write(file_path, file_path.name)
    return path


def _end_with_starter() -> None:
    """End the process group when stdin ends, which the server holds open as long as it lives."""
    sys.stdin.buffer.read()
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    limit_openmp_spin()
    sys.exit(main(Path(sys.argv[1])))
