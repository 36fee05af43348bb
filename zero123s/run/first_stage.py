"""Second stages: which run `system.geometry_convert_from` means, what is inherited from it, and how it is read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from zero123s.config.experiment import parse_experiment
from zero123s.config.load import LoadedConfig, load_config
from zero123s.errors import ConfigError
from zero123s.registry import Registry
from zero123s.run.folder import checkpoint_at
from zero123s.run.plugins import load_plugins
from zero123s.system.base import BaseSystem, plan_experiment
from zero123s.system.zero123 import SLOTS

KEY = "system.geometry_convert_from"
STAGED = ("height", "width", "batch_size")
OWN = ("resume", "timestamp", "description")
"""Keys of the top level that belong to one run alone."""


def on_top_of_the_first_stage(loaded: LoadedConfig, overrides: Sequence[str], profile: str | None) -> LoadedConfig:
    """Return a configuration laid over the settings of the run that it refines; as it is where it refines none.

    Slots of another type inherit what both types know and the first run has set away from its default. Pictures and
    batches begin at the size at which the first run ended.

    Raises:
        ConfigError: no such run, or its config.yaml is missing.
    """
    wanted = OmegaConf.select(loaded.cfg, KEY, throw_on_missing=False)
    if not isinstance(wanted, str):
        return loaded
    checkpoint, own = _stage(wanted)
    first = load_config(own)
    load_plugins(OmegaConf.select(first.cfg, "imports") or [])
    below = _inherited(first.cfg, loaded.cfg)
    words = [*overrides, f"{KEY}={json.dumps(str(checkpoint))}"]
    return load_config(loaded.path, words, profile, below=(str(own), below))


def read_first_stage(path: str) -> tuple[BaseSystem, Path]:
    """Return the system of a first stage, without its networks and its data, and the checkpoint to load into it.

    Raises:
        ConfigError: the run's config.yaml is missing or of another version.
    """
    checkpoint, own = _stage(path)
    experiment = parse_experiment(load_config(own))
    load_plugins(experiment.imports)
    return plan_experiment(experiment).build(prepare=False), checkpoint


def _stage(path: str) -> tuple[Path, Path]:
    checkpoint = checkpoint_at(path)
    if checkpoint is None:
        raise ConfigError(f"{KEY}={path}: no such checkpoint or run folder; name the first stage's.")
    own = checkpoint.resolve().parent.parent / "config.yaml"
    if not own.is_file():
        raise ConfigError(f"{KEY}={path}: the first stage's settings, {own}, are missing; keep the run folder whole.")
    return checkpoint, own


def _inherited(first: DictConfig, second: DictConfig) -> DictConfig:
    """Return what of a finished run's settings lies below a second stage's own."""
    below = first.copy()
    for key in OWN:
        below.pop(key, None)
    below.get("system", {}).pop("geometry_convert_from", None)
    for section in ("data", "data.random_camera"):
        _at_the_last_size(OmegaConf.select(below, section))
    for slot, registry in SLOTS.items():
        old, new = (OmegaConf.select(cfg, f"system.{slot}_type") for cfg in (first, second))
        if old is not None and new is not None and old != new:
            below.system[slot] = _shared(registry, old, new, OmegaConf.select(first, f"system.{slot}") or {})
            below.system[f"{slot}_type"] = new
    return below


def _at_the_last_size(section: Any) -> None:
    """Keep the last entry of every list that goes with the milestones of the resolution."""
    if not section or not section.get("resolution_milestones"):
        return
    for key in STAGED:
        if isinstance(section.get(key), ListConfig):
            section[key] = section[key][-1]
    section["resolution_milestones"] = []


def _shared(registry: Registry, old: str, new: str, section: Any) -> dict[str, Any]:
    """Return the settings that another type understands in the same way and that are not its predecessor's defaults."""
    of_old, of_new = (registry.get(name).Config for name in (old, new))
    common = next(base for base in of_old.__mro__ if issubclass(of_new, base))
    known = getattr(common, "__dataclass_fields__", {})
    defaults = OmegaConf.structured(of_old)
    return {str(k): v for k, v in section.items() if k in known and v != defaults.get(k)}
