"""The page of `zero123s web` in gradio: layout, and the service function of each control."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from zero123s.errors import ConfigError, MissingDependencyError, UserError
from zero123s.images.formats import readable_suffixes
from zero123s.web.job_view import JobView, history_table, loss_plots
from zero123s.web.photos import ADD, REMOVE, Corrections, PreparedPhoto, read_upload
from zero123s.web.service import Service
from zero123s.web.settings import Choice, read_number, read_whole_number

try:
    import gradio as gr
    from gradio.processing_utils import save_file_to_cache
    from gradio.utils import get_upload_folder
except ImportError as missing:
    raise MissingDependencyError(
        "The page is made with gradio, which is not installed: pip install -e '.[web]'."
    ) from missing

TITLE = "zero123s: one image to a mesh"
POLL_SECONDS = 1.0
FONTS = ["system-ui", "sans-serif"]
"""gradio's own would be fetched from elsewhere."""
CSS = """
.gradio-container { max-width: 1400px !important; margin: auto; }
.bar { background: #e5e7eb; border-radius: 6px; height: 10px; overflow: hidden; }
.bar > div { background: #2563eb; height: 10px; }
.plots { display: flex; flex-wrap: wrap; gap: 8px; background: white; color: black; border-radius: 6px; }
"""
HELP = f"""Paint <span style="color:{ADD}">green</span> where the object is and was missed, <span style="color:{REMOVE}">red</span>
where something else was taken for it; then *Apply*."""
MAX_LISTED_JOBS = 50
"""As many are remembered by the browser."""


def raising_gradio_errors(function: Callable) -> Callable:
    """Wrap a function so that its `UserError`s become gradio errors."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False, title="") from error

    return wrapped


def served(path: Path) -> str:
    """Copy a result to the one folder that visitors can access."""
    return save_file_to_cache(path, get_upload_folder())


def build_page(service: Service) -> gr.Blocks:
    """Build the page."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(f"# {TITLE}")
        current = gr.State("")
        shown = gr.State({})
        own = gr.BrowserState([], storage_key="zero123s-jobs", secret="zero123s")
        with gr.Row():
            with gr.Column():
                inputs = _image_column(service)
            with gr.Column():
                job = _job_column()
        _connect_image(service, inputs)
        _connect_jobs(service, inputs, job, current, shown, own)
        _api(service)
    page.queue(default_concurrency_limit=2, max_size=100)
    return page


# ------------------------------------------------------------ layout


def _image_column(service: Service) -> dict[str, Any]:
    s = service.settings
    c: dict[str, Any] = {}
    gr.Markdown("## 1. Image")
    about = f"A photo of one object, up to {s.limits.megabytes:g} MB and {s.limits.megapixels:g} megapixels"
    c["photo"] = gr.File(label=about, file_types=list(readable_suffixes()), height=120, elem_id="photo")
    with gr.Row(visible=bool(s.text_to_image_model)):
        c["prompt"] = gr.Textbox(label="or describe one", placeholder="a friendly dog", scale=3, elem_id="prompt")
        c["draw"] = gr.Button("Draw", scale=1)
    c["steps"] = gr.Image(label="Photo, cut-out, framed", interactive=False, height=180, elem_id="steps")
    c["found"] = gr.Markdown(elem_id="found")
    gr.Markdown("## 2. Correct")
    c["elevation"] = gr.Slider(-10, 80, 5, step=1, label="Elevation: degrees above the horizon", elem_id="elevation")
    with gr.Accordion("Framing", open=False):
        c["framed"] = gr.Radio(["auto", "yes", "no"], value="auto", label="Centre and scale the object")
        c["share"] = gr.Slider(0.3, 1.0, 0.78, step=0.01, label="Its share of the frame")
        with gr.Row():
            c["right"] = gr.Slider(-0.4, 0.4, 0.0, step=0.01, label="Shift to the right")
            c["up"] = gr.Slider(-0.4, 0.4, 0.0, step=0.01, label="Shift upwards")
        with gr.Row():
            for side in ("left", "right", "top", "bottom"):
                c[f"crop_{side}"] = gr.Slider(0, 80, 0, step=1, label=f"Cut off {side}, %")
    with gr.Accordion("Mask brush", open=False):
        gr.Markdown(HELP)
        c["editor"] = gr.ImageEditor(
            label="Paint over the photo",
            image_mode="RGBA",
            sources=(),
            transforms=(),
            layers=False,
            brush=gr.Brush(colors=[ADD, REMOVE], default_color=REMOVE, color_mode="fixed", default_size=24),
            height=420,
            elem_id="editor",
        )
    c["apply"] = gr.Button("Apply corrections")
    gr.Markdown("## 3. Run")
    with gr.Row():
        c["model"] = gr.Dropdown(list(s.models), value=next(iter(s.models)), label="Model")
        c["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed")
    c["quality"] = gr.Radio(
        [(f"{name}: {q.about}" if q.about else name, name) for name, q in s.qualities.items()],
        value=next(iter(s.qualities)),
        label="Quality",
        elem_id="quality",
    )
    c["run"] = gr.Button("Make a mesh", variant="primary", elem_id="run")
    return c


def _job_column() -> dict[str, Any]:
    c: dict[str, Any] = {}
    gr.Markdown("## Result")
    c["words"] = gr.Markdown("Nothing runs yet.", elem_id="words")
    c["bar"] = gr.HTML(_bar(0.0))
    c["cancel"] = gr.Button("Cancel", interactive=False, variant="stop", elem_id="cancel")
    c["preview"] = gr.Image(
        label="The field as it is now: colour and normals", interactive=False, height=290, elem_id="preview"
    )
    c["plots"] = gr.HTML(elem_id="plots")
    c["mesh"] = gr.Model3D(label="Mesh", clear_color=(0.93, 0.94, 0.96, 1.0), height=420, elem_id="mesh")
    c["files"] = gr.File(label="Downloads", file_count="multiple", interactive=False, elem_id="files")
    c["history"] = gr.Dropdown([], label="Your runs (remembered by this browser)", elem_id="history")
    c["table"] = gr.HTML(elem_id="table")
    return c


def _bar(share: float) -> str:
    return f'<div class="bar"><div style="width:{100 * min(1.0, share):.1f}%"></div></div>'


# ------------------------------------------------------------ images

SIDES = ("crop_left", "crop_right", "crop_top", "crop_bottom")
CORRECTING = ("framed", "share", "right", "up", *SIDES, "editor")


def _corrections(values: dict[str, Any]) -> Corrections:
    crop = tuple(values[side] / 100 for side in SIDES)
    framed = {"auto": None, "yes": True, "no": False}[values["framed"]]
    return Corrections(crop, values["share"], (values["right"], values["up"]), framed)  # type: ignore[arg-type]


def _strokes(editor: dict[str, Any] | None) -> np.ndarray | None:
    """Return the painted strokes of all layers; None if there are none."""
    layers = [np.asarray(layer, np.float32) / 255 for layer in (editor or {}).get("layers") or [] if layer is not None]
    painted = [layer for layer in layers if layer.ndim == 3 and layer.shape[2] == 4 and layer[..., 3].any()]
    if not painted:
        return None
    strokes = painted[0]
    for layer in painted[1:]:
        strokes = np.where(layer[..., 3:] > 0.5, layer, strokes)
    return strokes


def _connect_image(service: Service, c: dict[str, Any]) -> None:
    def fresh(photo: str | None) -> list[Any]:
        """A new image: everything that was corrected belonged to the old one."""
        if not photo:
            return [None, "", gr.skip(), None, "auto", 0.78, 0, 0, 0, 0, 0, 0]
        neutral: list[Any] = ["auto", 0.78, 0, 0, 0, 0, 0, 0]
        try:
            loaded = read_upload(photo, service.settings.limits)
            prepared = service.prepare(photo)
        except UserError as error:
            gr.Warning(str(error), title="")
            return [None, f"**{error}**", gr.skip(), None, *neutral]
        elevation = float(np.clip(round(prepared.elevation.elevation_deg), -10, 80))
        background = (255 * loaded.rgba + 0.5).astype(np.uint8)
        editor = {"background": background, "layers": [], "composite": None}
        return [prepared.steps, prepared.summary(), elevation, editor, *neutral]

    def corrected(photo: str | None, *values: Any) -> list[Any]:
        try:
            prepared = _prepared(service, photo, values)
        except UserError as error:
            gr.Warning(str(error), title="")
            return [None, f"**{error}**"]
        return [prepared.steps, prepared.summary()]

    neutral = [c[name] for name in CORRECTING if name != "editor"]
    quiet = {"api_visibility": "private"}
    c["photo"].change(fresh, c["photo"], [c["steps"], c["found"], c["elevation"], c["editor"], *neutral], **quiet)
    all_inputs = [c["photo"], *(c[name] for name in CORRECTING)]
    c["apply"].click(corrected, all_inputs, [c["steps"], c["found"]], **quiet)
    for name in ("share", "right", "up", *SIDES):
        c[name].release(corrected, all_inputs, [c["steps"], c["found"]], **quiet)
    c["framed"].input(corrected, all_inputs, [c["steps"], c["found"]], **quiet)


def _prepared(service: Service, photo: str | None, values: tuple[Any, ...]) -> PreparedPhoto:
    named: dict[str, Any] = dict(zip(CORRECTING, values, strict=True))
    return service.prepare(photo, _corrections(named), _strokes(named["editor"]))


# ------------------------------------------------------------ jobs


def _connect_jobs(
    service: Service, c: dict[str, Any], j: dict[str, Any], current: gr.State, shown: gr.State, own: gr.BrowserState
) -> None:
    @raising_gradio_errors
    def run(photo: str, elevation: float, model: str, quality: str, seed: int, ids: list, *values: Any) -> Any:
        prepared = _prepared(service, photo, values)
        choice = Choice(elevation, model, quality, int(seed or 0))
        job = service.make(prepared, choice, Path(photo).name, confirmed=True)
        return job.id, [job.id, *(ids or [])][:MAX_LISTED_JOBS]

    @raising_gradio_errors
    def draw(prompt: str, seed: int, ids: list) -> Any:
        job = service.draw(prompt, int(seed or 0))
        return job.id, [job.id, *(ids or [])][:MAX_LISTED_JOBS]

    @raising_gradio_errors
    def cancel(job_id: str) -> None:
        service.cancel(job_id)

    def refresh(job_id: str, before: dict, ids: list) -> list[Any]:
        jobs = service.queue.known(ids)
        view = service.view(job_id) if job_id and service.queue.known([job_id]) else None
        now = {"job": job_id, "jobs": [(job.id, job.state) for job in jobs], **_digest(view)}
        changed = {key for key in now if now[key] != before.get(key)}
        return [now, *_updates(view, changed), *_history(jobs, job_id, changed)]

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    # Names that leave the plain ones to the API.
    chosen = [c["photo"], c["elevation"], c["model"], c["quality"], c["seed"], own, *(c[n] for n in CORRECTING)]
    c["run"].click(run, chosen, [current, own], api_name="page_run", **quiet)
    c["draw"].click(draw, [c["prompt"], c["seed"], own], [current, own], api_name="page_draw", **quiet)
    j["cancel"].click(cancel, current, None, api_name="page_cancel", **quiet)
    j["history"].input(lambda job_id: job_id or "", j["history"], current, **quiet)
    outputs = [shown, *(j[name] for name in SHOWN), c["photo"], j["history"], j["table"]]
    gr.Timer(POLL_SECONDS).tick(refresh, [current, shown, own], outputs, queue=False, **quiet)


SHOWN = ("words", "bar", "cancel", "preview", "plots", "mesh", "files")


def _digest(view: JobView | None) -> dict[str, Any]:
    """Return a value that changes when a part of the page has to be redrawn."""
    if view is None:
        return dict.fromkeys(SHOWN)
    points = max((len(steps) for steps, _ in view.losses.values()), default=0)
    files = sorted(view.downloads)
    return {
        "words": (view.id, view.message),
        "bar": view.share,
        "cancel": view.state in ("waiting", "running"),
        "preview": str(view.preview or ""),
        "plots": (view.id, points),
        "mesh": (view.id, "glb" in files),
        "files": (view.id, files),
        "drawn": (view.id, "drawn" in files),
    }


def _updates(view: JobView | None, changed: set[str]) -> list[Any]:
    values: list[Any] = []
    for name in SHOWN:
        values.append(_value(view, name) if name in changed else gr.skip())
    drawn = view is not None and "drawn" in changed and "drawn" in view.downloads
    return [*values, served(view.downloads["drawn"]) if view and drawn else gr.skip()]


def _value(view: JobView | None, name: str) -> Any:
    if view is None:
        return gr.Button(interactive=False) if name == "cancel" else gr.skip()
    makers: dict[str, Callable[[], Any]] = {
        "words": lambda: f"**{view.title}**: {view.message}",
        "bar": lambda: _bar(view.share),
        "cancel": lambda: gr.Button(interactive=view.state in ("waiting", "running")),
        "preview": lambda: served(view.preview) if view.preview else None,
        "plots": lambda: f'<div class="plots">{loss_plots(view.losses)}</div>',
        "mesh": lambda: served(view.downloads["glb"]) if "glb" in view.downloads else None,
        "files": lambda: [served(path) for path in view.downloads.values()] or None,
    }
    return makers[name]()


def _history(jobs: list[Any], job_id: str, changed: set[str]) -> list[Any]:
    if not changed & {"jobs", "job"}:
        return [gr.skip(), gr.skip()]
    choices = [(f"{job.title} ({job.state})", job.id) for job in jobs]
    value = job_id if any(job.id == job_id for job in jobs) else None
    return [gr.Dropdown(choices=choices, value=value), history_table(jobs)]


# ------------------------------------------------------------ API


def _api(service: Service) -> None:
    """Add the endpoints for programs; see docs/web.md."""

    @raising_gradio_errors
    def prepare(photo: str) -> Any:
        prepared = service.prepare(photo)
        text = prepared.summary()
        rgba = (255 * prepared.rgba + 0.5).astype(np.uint8)
        return rgba, prepared.segmentation.confidence, prepared.elevation.elevation_deg, text

    @raising_gradio_errors
    def make(photo: str, elevation: str | None, model: str, quality: str, seed: str, force: bool) -> str:
        prepared = service.prepare(photo)
        degrees = prepared.elevation.elevation_deg if elevation in (None, "") else read_number("elevation", elevation)
        choice = Choice(degrees, model, quality, read_whole_number("seed", seed))
        return service.make(prepared, choice, Path(photo).name, force).id

    @raising_gradio_errors
    def state(job_id: str) -> dict[str, Any]:
        view = service.view(job_id)
        return {
            "state": view.state,
            "words": view.message,
            "step": view.step,
            "max_steps": view.max_steps,
            "seconds_left": view.seconds_left,
            "metrics": dict(view.metrics),
            "files": sorted(view.downloads),
        }

    @raising_gradio_errors
    def cancel(job_id: str) -> str:
        return service.cancel(job_id).state

    @raising_gradio_errors
    def download(job_id: str, kind: str) -> str:
        downloads = service.view(job_id).downloads
        if kind not in downloads:
            raise ConfigError(f"The job has no file '{kind}'; it has {', '.join(sorted(downloads)) or 'none yet'}.")
        return served(downloads[kind])

    s = service.settings
    with gr.Row(visible=False):
        photo, job_id, kind = gr.File(label="photo"), gr.Textbox(label="job_id"), gr.Textbox("glb", label="kind")
        # Text, read by the service: gradio answers a Number that is none with a sentence about itself.
        elevation = gr.Textbox(None, label="elevation")
        model = gr.Dropdown(list(s.models), value=next(iter(s.models)), label="model")
        quality = gr.Dropdown(list(s.qualities), value=next(iter(s.qualities)), label="quality")
        seed, force = gr.Textbox("0", label="seed"), gr.Checkbox(False, label="force")
        rgba = gr.Image(label="rgba", format="png", image_mode="RGBA")
        confidence, estimate = gr.Number(label="confidence"), gr.Number(label="elevation")
        text = gr.Textbox(label="words")
        record, word, file = gr.JSON(label="record"), gr.Textbox(label="state"), gr.File(label="file")
        button = gr.Button()
    button.click(prepare, photo, [rgba, confidence, estimate, text], api_name="prepare")
    button.click(make, [photo, elevation, model, quality, seed, force], word, api_name="make")
    button.click(state, job_id, record, api_name="state", queue=False)
    button.click(cancel, job_id, word, api_name="cancel")
    button.click(download, [job_id, kind], file, api_name="download")
