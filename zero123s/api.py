"""The main job as Python functions, with every option of the YAML files."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jaxtyping import Float

from zero123s.callbacks.checkpoints import read_head
from zero123s.callbacks.run_callback import Progress, StepReport
from zero123s.callbacks.viewer import require_viewer
from zero123s.config.overrides import NULL
from zero123s.diffusion.checkpoint.locate import find_file
from zero123s.errors import ConfigError, ImageError, UserError
from zero123s.images.io import read_image, write_png_atomic
from zero123s.images.pixels import ImageLike, to_rgba
from zero123s.mesh.readers import SUFFIXES, read_mesh
from zero123s.preprocess.input_image import LowConfidenceMaskError, low_confidence_message
from zero123s.preprocess.input_image import prepare as prepare_photo
from zero123s.preprocess.mask_confidence import THRESHOLD
from zero123s.run.folder import read_run_record
from zero123s.run.plan import plan_run
from zero123s.run.resume import find_checkpoint, newest_checkpoint, run_dir_for
from zero123s.run.runner import Runner
from zero123s.runtime.files import user_path
from zero123s.structures import Mesh

if TYPE_CHECKING:
    from zero123s.system.base import Plan

KINDS = ("color", "normal", "depth", "opacity")
"""Images of each view in a preview, side by side."""
UNSAVED = "image.png"


class RunInterrupted(UserError):
    """A run was stopped before its end; its folder has a checkpoint to resume from."""


@dataclass(frozen=True)
class Result:
    """The results of a run."""

    mesh: Mesh | None
    """As exported, z up; None where nothing was exported."""
    run_dir: Path
    metrics: dict[str, float]
    """Scores of the last preview, such as "psnr" and "mask_iou" of the input view."""
    images: dict[str, Float[np.ndarray, "V H W 3"]] = field(default_factory=dict)
    """"color", "normal", "depth" and "opacity" of the views of the last preview, in [0, 1]."""
    files: dict[str, Path] = field(default_factory=dict)
    """Every exported file by format ("glb", "obj", ...), and "turntable"."""
    record: dict[str, Any] = field(default_factory=dict)
    """The whole run.json: times, peak memory, model."""


def image_to_mesh(
    image: ImageLike | None = None,
    config: str | Path = "configs/stable-zero123.yaml",
    overrides: Sequence[str] | Mapping[str, Any] | None = (),
    callback: Callable[[Progress], Any] | None = None,
    profile: str = "auto",
    gpu: str | int | Sequence[int] | None = None,
) -> Result:
    """Turn an image with transparent background into a mesh, as `launch.py --train` does.

    Args:
        image: the object on a transparent background, as `prepare` returns it; None = the image that the config names.
        config: a YAML file, relative to the working folder or to this project.
        overrides: any keys of the YAML file, as `key=value` ("trainer.max_steps=300") or as a mapping, nested or dotted, of
            YAML values, paths, sets, and numbers and arrays of NumPy.
        callback: called after every step; returning False stops the run with a checkpoint.
        profile: overlay of the YAML file: "auto" (cpu without CUDA or with the bundled model), "none" or a name.
        gpu: an index, several, or as `--gpu`.

    Returns:
        Mesh, images, metrics, files and run folder.

    Raises:
        ConfigError, ImageError, CheckpointError, MeshError: what is wrong and what to do, in one sentence.
        RunInterrupted: the callback returned False, or a signal came; the message says how to resume.

    Example:
        Trains for minutes, hence skipped:

        >>> from zero123s import image_to_mesh
        >>> result = image_to_mesh("hamburger_rgba.png", overrides={"trainer.max_steps": 300})  # doctest: +SKIP
        >>> result.mesh.vertices.shape, result.metrics["psnr"], result.files["glb"]  # doctest: +SKIP
    """
    dotlist = to_dotlist(() if overrides is None else overrides)
    gpu = _gpu_flag(gpu)
    if callback is not None and not callable(callback):
        raise ConfigError(f"callback={callback!r}: give a function of one argument, or None.")
    if not isinstance(config, str | Path):
        raise ConfigError(f"config={config!r}: give the path of a YAML file.")
    pixels = None if image is None or isinstance(image, str | Path) else to_rgba(image)
    if image is not None:
        dotlist.append(f"data.image_path={json.dumps(str(image) if pixels is None else UNSAVED)}")
    _, plan = plan_run(find_file(config) or config, dotlist, profile)
    experiment = plan.experiment
    checkpoint = find_checkpoint(experiment.resume, experiment) if experiment.resume else None
    with run_dir_for(checkpoint, experiment) as out_dir:
        if pixels is not None:
            experiment.data.image_path = str(write_png_atomic(out_dir / "input_rgba.png", pixels))
        return run_plan(plan, out_dir, checkpoint, callback, gpu)


def run_plan(
    plan: "Plan",
    out_dir: Path,
    checkpoint: Path | None = None,
    callback: Callable[[Progress], Any] | None = None,
    gpu: str | None = None,
) -> Result:
    """Train a checked plan in a folder and read back the results.

    Args:
        plan: as `zero123s.run.plan.plan_run` returns it.
        out_dir: the run folder.
        checkpoint: to resume from; None = from the start.
        callback: called after every step; returning False stops the run with a checkpoint.
        gpu: as `--gpu`.

    Returns:
        Mesh, images, metrics, files and run folder.

    Raises:
        ConfigError, CheckpointError, MissingDependencyError: something that training needs is missing.
        RunInterrupted: the callback returned False, or a signal came; the message says how to resume.
    """
    plan.requirements("train")
    require_viewer(plan)
    run_callbacks = [StepReport(callback, out_dir)] if callback else []
    runner = Runner(plan, out_dir, checkpoint, gpu=gpu, run_callbacks=run_callbacks)
    if runner.run("train") == "interrupted":
        checkpoint = newest_checkpoint(out_dir)
        if checkpoint is None:
            raise RunInterrupted("The run stopped before its first checkpoint; start it again.")
        step = read_head(checkpoint).step
        raise RunInterrupted(f"The run stopped at step {step}; overrides=['resume={out_dir}'] goes on with it.")
    return read_result(out_dir)


def _gpu_flag(gpu: str | int | Sequence[int] | None) -> str | None:
    """Return what `--gpu` would say; raises ConfigError."""
    if gpu is None or isinstance(gpu, str):
        return gpu
    indices: list[Any] = list(gpu) if isinstance(gpu, Iterable) else [gpu]
    if not indices or not all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in indices):
        raise ConfigError(f"gpu={gpu!r}: give an index such as 0, several such as [0, 1], or None.")
    return ",".join(str(int(i)) for i in indices)


def read_result(run_dir: str | Path) -> Result:
    """Read back the results of an earlier run.

    Args:
        run_dir: its folder, which contains run.json.

    Returns:
        Mesh, images, metrics and files.

    Raises:
        ConfigError: not the folder of a run.

    Example:
        >>> from zero123s import read_result
        >>> read_result("no/such/run")
        Traceback (most recent call last):
        zero123s.errors.ConfigError: 'no/such/run' is not a folder of a run; it has no run.json.
    """
    run_dir = user_path(run_dir)
    record = read_run_record(run_dir)
    if not record:
        raise ConfigError(f"'{run_dir}' is not a folder of a run; it has no run.json.")
    files = {
        k: _file_of(run_dir, path) for k, path in {**record.get("pictures", {}), **record.get("files", {})}.items()
    }
    mesh_file = next((files[s[1:]] for s in SUFFIXES if s[1:] in files and files[s[1:]].is_file()), None)
    mesh = None if mesh_file is None else read_mesh(mesh_file)
    images = preview_views(run_dir, record.get("step"))
    return Result(mesh, run_dir, record.get("metrics", {}), images, files, record)


def _file_of(run_dir: Path, path: str) -> Path:
    """Return where a file of run.json is; runs of earlier versions wrote it relative to their working folder."""
    return run_dir / path if (run_dir / path).exists() or not Path(path).exists() else Path(path)


def prepare(
    photo: ImageLike, size: int = 512, backend: str = "auto", model: str = "", force: bool = False
) -> np.ndarray:
    """Cut the object out of a photo and frame it as Zero123 expects.

    Args:
        photo: any image of one object.
        size: side S of the result in pixels, 16 to 4096.
        backend: how the object is found; see `zero123s.preprocess.segment.segment`.
        model: of the backends "rembg" and "transformers".
        force: also return a cut-out of low confidence.

    Returns:
        S S 4, float32 in [0, 1] with straight alpha.

    Raises:
        ConfigError: an unknown backend, or one without the model it needs.
        ImageError: the photo cannot be read or shows no object.
        LowConfidenceMaskError: the cut-out has a confidence below 0.5.
        MissingDependencyError: a backend that is not installed.

    Example:
        >>> import numpy as np
        >>> from zero123s import prepare
        >>> photo = np.zeros((96, 96, 4))
        >>> photo[10:80, 30:60] = [1, 0, 0, 1]  # a red box on a transparent background
        >>> rgba = prepare(photo, size=64)
        >>> rgba.shape, rgba[32, 32].tolist()  # centred
        ((64, 64, 4), [1.0, 0.0, 0.0, 1.0])
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 16 <= size <= 4096:
        raise ImageError(f"size={size!r}: give the side of the result, 16 to 4096, as a whole number of pixels.")
    photo = photo if isinstance(photo, str | Path) else to_rgba(photo, "photo")
    prepared = prepare_photo(photo, int(size), backend, str(model))
    found = prepared.segmentation
    if found.confidence < THRESHOLD and not force:
        message = low_confidence_message(found, "the photo", "force=True")
        raise LowConfidenceMaskError(message, prepared.steps)
    return prepared.rgba


def to_dotlist(overrides: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Convert overrides to `key=value` arguments of the command line.

    Args:
        overrides: `key=value` strings, or a mapping of keys to values, nested or dotted.

    Returns:
        Words `key=value`, the values as JSON.

    Raises:
        ConfigError: neither strings nor a mapping, or a value that YAML cannot hold.

    Example:
        >>> from zero123s.api import to_dotlist
        >>> to_dotlist({"trainer.max_steps": 300, "data": {"default_elevation_deg": 20}})
        ['trainer.max_steps=300', 'data.default_elevation_deg=20']
    """
    if not isinstance(overrides, Mapping):
        if isinstance(overrides, str) or not isinstance(overrides, Iterable):
            raise ConfigError(f"overrides={overrides!r}: give a list of key=value strings, or a mapping.")
        dotlist = list(overrides)
        if wrong := [w for w in dotlist if not isinstance(w, str)]:
            raise ConfigError(f"overrides: {wrong[0]!r} is not a word; give texts such as 'trainer.max_steps=100'.")
        return dotlist
    dotlist = []
    for key, value in overrides.items():
        is_schedule = isinstance(value, Mapping) and value and all(str(step).isdigit() for step in value)
        if isinstance(value, Mapping) and not is_schedule:
            dotlist += [f"{key}.{word}" for word in to_dotlist(value)]
        else:
            dotlist.append(f"{key}={NULL if value is None else json.dumps(_yaml_value(str(key), value))}")
    return dotlist


def _yaml_value(key: str, value: Any) -> Any:
    """Convert a Python value to its YAML representation; raises ConfigError that names the key."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):  # numbers and arrays of NumPy, tensors
        return _yaml_value(key, value.tolist())
    if isinstance(value, Real):  # fractions and their like
        return float(value)
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_yaml_value(key, entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(k): _yaml_value(key, entry) for k, entry in value.items()}
    raise ConfigError(f"overrides: '{key}' is a {type(value).__name__}; give text, a number, a list or a mapping.")


def preview_views(run_dir: Path, step: Any) -> dict[str, Float[np.ndarray, "V H W 3"]]:
    """Read the preview images of a step.

    Args:
        run_dir: the run folder.
        step: of the preview.

    Returns:
        V H W 3 in [0, 1] by KINDS; empty if there is no such preview.
    """
    strip, config = run_dir / "save" / f"it{step}-val.png", run_dir / "config.yaml"
    if not strip.is_file() or not config.is_file():
        return {}
    data = yaml.safe_load(config.read_text(encoding="utf-8")).get("data") or {}
    n_views = int((data.get("random_camera") or {}).get("n_val_views", 0))
    pixels = read_image(strip).rgba[..., :3]
    height, width = pixels.shape[0], pixels.shape[1]
    if n_views < 1 or height % n_views or width % len(KINDS):
        return {}  # a system that draws other previews
    views = pixels.reshape(n_views, height // n_views, len(KINDS), width // len(KINDS), 3)
    return {kind: views[:, :, i] for i, kind in enumerate(KINDS)}
