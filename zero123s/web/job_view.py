"""The state of a job, read from its folder by any process at any time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from zero123s.api import preview_views
from zero123s.images.svg_plot import curve
from zero123s.runtime.files import replacing
from zero123s.web.job_process import PROGRESS, RUN
from zero123s.web.jobs import OUTCOME, Job, JobQueue, read_json

SECONDS_PER_FRAME = 0.15
PREVIEW_HEIGHT = 256
"""Pixels."""
STAGES = {
    "train": "training",
    "validate": "drawing the result",
    "test": "drawing the turntable",
    "export": "making the mesh",
    "report": "writing the report",
    "draw": "drawing the image",
}
SHOWN_LOSSES = ("total", "novel/sds", "reference/rgb", "reference/mask")


@dataclass(frozen=True)
class JobView:
    """The state of a job, as displayed."""

    id: str
    kind: str
    title: str
    state: str
    message: str
    """The state in one sentence."""
    stage: str = ""
    step: int = 0
    max_steps: int = 0
    seconds_left: float | None = None
    """Remaining seconds of training, at the average pace."""
    losses: Mapping[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    """Name -> steps and values."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    preview: Path | None = None
    """A turntable of the field, colour and normals side by side, as an animated WebP."""
    downloads: Mapping[str, Path] = field(default_factory=dict)
    """Files of a finished job, by format."""

    @property
    def share(self) -> float:
        """Completed share of the steps, 0 to 1."""
        return 1.0 if self.state == "finished" else self.step / self.max_steps if self.max_steps else 0.0


def read_job_view(queue: JobQueue, job: Job) -> JobView:
    """Read the state of a job."""
    folder = queue.folder(job)
    lines = _progress_lines(folder / PROGRESS)
    last = lines[-1] if lines else {}
    trained = [line for line in lines if line.get("step") is not None]
    latest = trained[-1] if trained else {}
    outcome = read_json(folder / OUTCOME) if job.state == "finished" else {}
    downloads = {kind: folder / place for kind, place in outcome.get("downloads", {}).items()}
    view = JobView(
        job.id,
        job.kind,
        job.title,
        job.state,
        "",
        last.get("stage", ""),
        int(latest.get("step", 0)),
        int(latest.get("max_steps", 0)),
        last.get("left"),
        _curves(trained),
        outcome.get("metrics", {}),
        _preview(folder),
        {kind: path for kind, path in downloads.items() if path.is_file()},
    )
    return JobView(**{**view.__dict__, "message": _sentence(queue, job, view)})


def loss_plots(losses: Mapping[str, tuple[list[float], list[float]]]) -> str:
    """Plot the main losses, as SVG."""
    chosen = [name for name in SHOWN_LOSSES if name in losses] or sorted(losses)[:4]
    return "".join(curve(name, *losses[name], width=270) for name in chosen)


def history_table(jobs: list[Job]) -> str:
    """Format a table of jobs as HTML; titles come from visitors and are escaped."""
    rows = "".join(
        f"<tr><td>{escape(j.title)}</td><td>{j.state}</td><td>{escape(str(j.task.get('quality', '')))}</td>"
        f"<td>{tqdm.format_interval(j.ended - j.started) if j.started and j.ended else ''}</td></tr>"
        for j in jobs
    )
    return f"<table><tr><th>image</th><th>state</th><th>quality</th><th>time</th></tr>{rows}</table>" if rows else ""


def _sentence(queue: JobQueue, job: Job, view: JobView) -> str:
    if job.state == "waiting":
        ahead = queue.position(job)
        return f"Waiting; {ahead} more before it." if ahead else "Waiting; it is next."
    if job.state == "running":
        if not view.stage:
            return "Starting."
        text = f"{STAGES.get(view.stage, view.stage).capitalize()}"
        if view.stage != "train":
            return f"{text}."
        left = "" if view.seconds_left is None else f", {tqdm.format_interval(view.seconds_left)} left, then the export"
        return f"{text}: step {view.step} of {view.max_steps}{left}."
    if job.state == "failed":
        return job.error or "Failed."
    at = f" at step {view.step}" if view.step and job.state == "cancelled" else ""
    scores = ", ".join(f"{name} {value:.2f}" for name, value in view.metrics.items())
    return f"{job.state.capitalize()}{at} after {tqdm.format_interval(job.ended - (job.started or job.ended))}." + (
        f" Input view: {scores}." if scores else ""
    )


def _progress_lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    # The last line may be half written.
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _curves(lines: list[dict[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    found: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines:
        for name, value in line.get("losses", {}).items():
            steps, values = found.setdefault(name, ([], []))
            steps.append(line["step"])
            values.append(value)
    return found


def _preview(folder: Path) -> Path | None:
    """Return the turntable of the newest preview of the run, rendered on first request."""
    strips = {int(p.name[2:-8]): p for p in (folder / RUN / "save").glob("it*-val.png") if p.name[2:-8].isdigit()}
    if not strips:
        return None
    step = max(strips)
    path = folder / f"preview-{step}.webp"
    if not path.is_file():
        views = preview_views(folder / RUN, step)
        if not views:
            return strips[step]
        _write_turntable(path, views["color"], views["normal"])
    return path


def _write_turntable(path: Path, colors: np.ndarray, normals: np.ndarray) -> None:
    frames = (255 * np.concatenate([colors, normals], axis=2) + 0.5).astype(np.uint8)
    size = (round(frames.shape[2] * PREVIEW_HEIGHT / frames.shape[1]), PREVIEW_HEIGHT)
    first, *rest = (Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames)
    with replacing(path, sync=False) as file:
        first.save(
            file,
            "WEBP",
            save_all=True,
            append_images=rest,
            duration=round(1000 * SECONDS_PER_FRAME),
            loop=0,
            quality=80,
        )
