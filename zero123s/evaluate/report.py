"""report.html: one self-contained file, with the mesh in a viewer that works offline."""

import base64
import csv
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zero123s.evaluate.scores import Scores, reference_images, rendered_views
from zero123s.images.encode import encode_image
from zero123s.images.svg_plot import curve, threshold_curve
from zero123s.mesh.gltf import glb_bytes
from zero123s.ops.rasterization.software import on_white
from zero123s.run.folder import read_run_record
from zero123s.runtime.files import without_folders, write_text
from zero123s.structures import Mesh, ReferenceView

HERE = Path(__file__).parent
MAX_VIDEO_BYTES = 30_000_000
MAX_VIEWS = 4
VIEW_MODES = ("colour", "lit", "shape", "normals")


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _figure(image: np.ndarray, caption: str) -> str:
    uri = _data_uri("image/png", encode_image(image, "png"))
    return f'<figure><img src="{uri}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _metrics(sections: Mapping[str, Scores]) -> str:
    parts = []
    for title, scores in sections.items():
        rows = "".join(
            f'<tr><td>{escape(key.replace("_", " "))}</td><td class="number">'
            f"{f'{value:.4g}' if isinstance(value, float) else escape(str(value))}</td></tr>"
            for key, value in scores.items()
        )
        if rows:
            parts.append(f"<div><h3>{escape(title.replace('_', ' '))}</h3><table>{rows}</table></div>")
    return f'<h2>Metrics</h2><div class="row">{"".join(parts)}</div>'


def _training_curves(run: Path) -> str:
    """Plot every logged value of the newest csv log."""
    files = sorted(run.glob("csv_logs/**/metrics.csv"), key=lambda p: p.stat().st_mtime)
    if not files:
        return ""
    columns: dict[str, tuple[list[float], list[float]]] = {}
    with open(files[-1], encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for key, text in row.items():
                if key and text and key not in ("step", "epoch") and row.get("step"):
                    x, y = columns.setdefault(key, ([], []))
                    x.append(float(row["step"]))
                    y.append(float(text))
    plots = "".join(curve(key, *columns[key]) for key in sorted(columns))
    return f'<h2>Training</h2><div class="row">{plots}</div>'


def _threshold_plot(record: Mapping[str, Any]) -> str:
    export = record.get("export") or {}
    known = export.get("threshold_curve")
    if not known:
        return ""
    return f"<h2>Threshold</h2>{threshold_curve(known, float(export['threshold']))}"


def _elevation_plot(record: Mapping[str, Any]) -> str:
    known = (record.get("input") or {}).get("elevation")
    if not known:
        return ""
    plot = curve("score over the elevation in degrees", known["candidates_deg"], known["scores"], 420, 160)
    text = f"{known['elevation_deg']:.0f} degrees, confidence {known['confidence']:.2f}"
    return f"<h2>Elevation</h2><p>estimated: {text}</p>{plot}"


def _views(mesh: Mesh, reference: ReferenceView | None) -> str:
    if reference is None:
        return ""
    n = len(reference.cameras)
    chosen = sorted({round(i) for i in np.linspace(0, n - 1, min(n, MAX_VIEWS))})
    rows = []
    for i in chosen:
        (rendered,) = rendered_views(mesh, reference.cameras.select(slice(i, i + 1)))
        expected = on_white(reference_images(reference)[i])
        difference = np.abs(on_white(rendered) - expected)
        row = _figure(expected, f"input {i}") + _figure(on_white(rendered), "mesh") + _figure(difference, "difference")
        rows.append(f'<div class="row">{row}</div>')
    return f"<h2>Comparison with the input</h2>{''.join(rows)}"


def _turntable(run: Path) -> str:
    videos = sorted(run.glob("save/*-test.mp4"), key=lambda p: p.stat().st_mtime)
    if not videos or videos[-1].stat().st_size > MAX_VIDEO_BYTES:
        return ""
    uri = _data_uri("video/mp4", videos[-1].read_bytes())
    return f'<h2>Turntable</h2><p>colour, normals, depth, opacity</p><video controls loop muted src="{uri}"></video>'


def warnings_of(sections: Mapping[str, Scores], record: Mapping[str, Any]) -> list[str]:
    """Collect the warnings about a run's mesh.

    Args:
        sections: scores by section.
        record: content of run.json; may be empty.

    Returns:
        One sentence per warning.
    """
    found = [str(w) for w in record.get("warnings") or []]
    note = (record.get("export") or {}).get("unwrap_note")
    found += [f"{note}."] if note else []
    given = record.get("input") or {}
    found += (given.get("elevation") or {}).get("warnings", [])
    if given.get("doubt"):
        found.append(f"The cut-out of the photo was doubtful and forced: {given['doubt']}.")
    health = sections.get("health", {})
    if health and not health["watertight"]:
        found.append(
            f"The mesh is not watertight: {health['open_edges']} open and {health['non_manifold_edges']} "
            "non-manifold edges."
        )
    if health.get("self_intersecting_faces"):
        found.append(f"{health['self_intersecting_faces']} faces cross other faces.")
    model = record.get("model") or {}
    if model.get("bundled"):
        found.append("Guided by the small bundled model; Stable Zero123 gives better backs and sides.")
    return found


def _settings(run: Path, record: Mapping[str, Any]) -> str:
    config = run / "config.yaml"
    parts = [("run.json", json.dumps(without_folders(record, run), indent=2))]
    if config.is_file():
        settings = without_folders(yaml.safe_load(config.read_text(encoding="utf-8")), run)
        parts.append(("config.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)))
    details = "".join(f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>" for name, text in parts)
    return f"<h2>Settings</h2>{details}"


def _viewer(mesh_file: Path, mesh: Mesh) -> str:
    data = mesh_file.read_bytes() if mesh_file.suffix.lower() == ".glb" else glb_bytes(mesh, mesh_file.stem)
    buttons = " ".join(f'<button data-look="{i}">{name}</button>' for i, name in enumerate(VIEW_MODES))
    return (
        f'<h2>Mesh</h2><canvas id="viewer"></canvas><p>{buttons} drag to turn, wheel to zoom</p>'
        f'<script type="application/octet-stream" id="mesh">{base64.b64encode(data).decode()}</script>'
        f"<script>{(HERE / 'viewer.js').read_text(encoding='utf-8')}</script>"
    )


def write_report(
    path: Path,
    mesh_file: Path,
    mesh: Mesh,
    sections: Mapping[str, Scores],
    reference: ReferenceView | None = None,
    run: Path | None = None,
) -> Path:
    """Write the report: one HTML file without external resources.

    Args:
        path: of the report.
        mesh_file: shown in the viewer; a glb as it is, anything else converted.
        mesh: the same mesh, read.
        sections: scores by section.
        reference: images to compare the mesh with.
        run: run folder with video, logs and settings.

    Returns:
        `path`.

    Raises:
        OutputError: the file cannot be written.
    """
    record = {} if run is None else read_run_record(run)
    title = escape(run.name if run is not None else mesh_file.name)
    warnings = "".join(
        f'<div class="warning">{escape(w)}</div>' for w in without_folders(warnings_of(sections, record), run)
    )
    body = [warnings, _viewer(mesh_file, mesh), _views(mesh, reference), _metrics(sections)]
    if run is not None:
        body += [
            _turntable(run),
            _elevation_plot(record),
            _threshold_plot(record),
            _training_curves(run),
            _settings(run, record),
        ]
    style = (HERE / "report.css").read_text(encoding="utf-8")
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"</head><body><h1>{title}</h1>{''.join(body)}</body></html>\n",
    )
    return path
