"""Settings of the operator of a web server: models, qualities and limits. Visitors choose among them by name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from zero123s.diffusion.checkpoint.locate import find_file, locate_checkpoint
from zero123s.errors import ConfigError
from zero123s.run.plan import plan_run
from zero123s.web.photos import Limits

AUTO = "auto"
FORMATS = ("glb", "gltf", "obj", "ply", "stl", "3mf", "usdz")
PREVIEW_VIEWS = 12
"""Frames of the turntable shown during training."""
PREVIEWS = 10
"""How often it is drawn anew."""
MAX_SEED = 2**31 - 1
MAX_PROMPT = 300
TEXT_CONFIG = "configs/text-to-3d.yaml"
TOTAL_STEPS = "system.scheduler.args.total_iters"


@dataclass(frozen=True)
class Quality:
    """A trade-off between time and detail."""

    steps: float = 1.0
    """Times the recipe's own number of steps."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


QUALITIES = {
    "quick": Quality(
        1 / 3,
        {
            "system.exporter.isosurface_resolution": 96,
            "system.exporter.max_faces": 8000,
            "system.exporter.texture_size": 512,
        },
        "a third of the recipe's steps, a light mesh",
    ),
    "normal": Quality(1.0, {}, "the recipe as it is"),
    "best": Quality(2.0, {"system.exporter.texture_size": 2048}, "twice the steps, a texture of 2048 texels"),
}


@dataclass(frozen=True)
class Settings:
    """The server's settings from the command line."""

    out: Path
    """Absolute; one folder per job below."""
    config: str
    profile: str = "auto"
    overrides: tuple[str, ...] = ()
    """Overrides for all runs."""
    models: Mapping[str, str] = field(default_factory=lambda: {AUTO: AUTO})
    """Name on the page -> value of `system.guidance.checkpoint`."""
    qualities: Mapping[str, Quality] = field(default_factory=lambda: dict(QUALITIES))
    limits: Limits = field(default_factory=Limits)
    text_to_image_model: str = ""
    """Text-to-image pipeline for prompts; empty = no prompts."""


@dataclass(frozen=True)
class Choice:
    """A visitor's choices for a run."""

    elevation_deg: float
    model: str
    quality: str
    seed: int = 0


def read_qualities(path: Path) -> dict[str, Quality]:
    """Return the qualities of a YAML file, `name: {steps: 0.5, about: ..., overrides: {key: value}}`; raises
    ConfigError.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {(error.strerror or str(error)).lower()}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"'{path}' must name qualities: `quick: {{steps: 0.5, overrides: {{key: value}}}}`.")
    found = {}
    for name, entry in content.items():
        if not isinstance(entry, dict) or set(entry) - {"steps", "overrides", "about"}:
            raise ConfigError(f"'{path}', {name}: expected steps, overrides and about, got {entry!r}.")
        steps, overrides = entry.get("steps", 1.0), entry.get("overrides") or {}
        if isinstance(steps, bool) or not isinstance(steps, int | float) or not 0 < steps <= 100:
            raise ConfigError(f"'{path}', {name}.steps: expected a number of times above 0 to 100, got {steps!r}.")
        if not isinstance(overrides, dict):
            raise ConfigError(f"'{path}', {name}.overrides: expected `key: value`, got {overrides!r}.")
        found[str(name)] = Quality(float(steps), overrides, str(entry.get("about", "")))
    return found


def read_models(flags: Sequence[str]) -> dict[str, str]:
    """Return name -> checkpoint of `--model NAME=PATH` or `--model PATH`; raises CheckpointError, ConfigError."""
    models: dict[str, str] = {}
    for word in flags:
        name, equals, path = word.partition("=")
        name, path = (name, path) if equals else (Path(word).stem, word)
        if not name or name in models:
            raise ConfigError(f"--model {word}: every model needs a name of its own; give NAME=PATH.")
        locate_checkpoint(path)
        models[name] = path if path == AUTO else str(locate_checkpoint(path).path.resolve())
    return models or {AUTO: AUTO}


def check_settings(settings: Settings) -> None:
    """Check every quality completely, and that the models exist; raises UserError."""
    for name in settings.qualities:
        for model in settings.models:
            try:
                overrides = run_overrides(settings, Choice(0.0, model, name), Path("image.png"), settings.out / "check")
                plan_run(settings.config, overrides, settings.profile)[1].requirements("train")
            except ConfigError as error:
                raise ConfigError(f"quality '{name}': {error}") from error


def read_number(name: str, value: object) -> float:
    """Parse a number sent as text or as a number; raises ConfigError."""
    try:
        return float(str(value))
    except ValueError as error:
        raise ConfigError(f"{name}={value!r} is not a number.") from error


def read_whole_number(name: str, value: object) -> int:
    """Parse a whole number sent as text or as a number; raises ConfigError."""
    number = read_number(name, value)
    if not number.is_integer():  # false for NaN and the infinities as well
        raise ConfigError(f"{name}={value!r} is not a whole number.")
    return int(number)


def check_choice(settings: Settings, choice: Choice) -> None:
    """Raise ConfigError if a visitor's choice is not offered."""
    if choice.model not in settings.models:
        raise ConfigError(f"There is no model '{choice.model}'; choose {' or '.join(settings.models)}.")
    if choice.quality not in settings.qualities:
        raise ConfigError(f"There is no quality '{choice.quality}'; choose {' or '.join(settings.qualities)}.")
    if isinstance(choice.elevation_deg, bool) or not isinstance(choice.elevation_deg, int | float):
        raise ConfigError("The elevation must be a number of degrees.")
    if not -90 <= choice.elevation_deg <= 90:  # false for NaN as well
        raise ConfigError(f"An elevation of {choice.elevation_deg:g} degrees is none; give -90 to 90.")
    if isinstance(choice.seed, bool) or not isinstance(choice.seed, int) or not 0 <= choice.seed <= MAX_SEED:
        raise ConfigError(f"The seed must be a whole number, 0 to {MAX_SEED}.")


def draw_task(settings: Settings, prompt: str, seed: int) -> dict[str, Any]:
    """Return the task of a job that generates an image; raises ConfigError for an invalid prompt."""
    prompt = " ".join(str(prompt).split())
    if not settings.text_to_image_model:
        raise ConfigError("This server draws no images; its operator can name a pipeline with --draw-with.")
    if not 3 <= len(prompt) <= MAX_PROMPT:
        raise ConfigError(f"Describe one object in 3 to {MAX_PROMPT} letters.")
    overrides = [w for w in settings.overrides if w.startswith("data.text_to_image.")]
    overrides += [
        f"data.text_to_image.model={json.dumps(settings.text_to_image_model)}",
        f"data.prompt={json.dumps(prompt)}",
    ]
    return {
        "prompt": prompt,
        "seed": int(seed),
        "config": str(find_file(TEXT_CONFIG) or TEXT_CONFIG),
        "words": overrides,
    }


def run_overrides(settings: Settings, choice: Choice, image: Path, run_dir: Path) -> list[str]:
    """Return the overrides of a run, as for launch.py; raises ConfigError."""
    quality = settings.qualities[choice.quality]
    loaded, plan = plan_run(settings.config, [*settings.overrides, "data.image_path=image.png"], settings.profile)
    steps = max(1, round(plan.experiment.trainer.max_steps * quality.steps))
    places: dict[str, Any] = {"trainer.max_steps": steps}
    total = OmegaConf.select(loaded.cfg, TOTAL_STEPS)
    if total is not None:
        places[TOTAL_STEPS] = max(1, round(total * quality.steps))
    if hasattr(plan.experiment.system, "exporter"):
        places["system.exporter.formats"] = list(FORMATS)
        places["data.random_camera.n_val_views"] = PREVIEW_VIEWS
    if settings.models[choice.model] != AUTO:
        places["system.guidance.checkpoint"] = settings.models[choice.model]
    places |= quality.overrides
    places["trainer.val_check_interval"] = max(1, int(places["trainer.max_steps"]) // PREVIEWS)
    places |= {
        "data.image_path": str(image),
        "data.default_elevation_deg": float(choice.elevation_deg),
        "seed": choice.seed,
        "exp_root_dir": str(run_dir.parent.parent),
        "name": run_dir.parent.name,
        "tag": run_dir.name,
        "use_timestamp": False,
        "trainer.enable_progress_bar": False,
    }
    return [*settings.overrides, *(f"{key}={json.dumps(value)}" for key, value in places.items())]
