"""From a YAML file and overrides to a checked plan; shared by the command line, the API, batches and the web page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from zero123s.config.experiment import parse_experiment
from zero123s.config.interpolation import resolve
from zero123s.config.load import LoadedConfig, load_config, profile_names
from zero123s.errors import CheckpointError, ConfigError
from zero123s.registry import Registry
from zero123s.run.plugins import load_plugins
from zero123s.run.resume import checkpoint_at, find_checkpoint, run_dir_around, run_dir_of
from zero123s.runtime.processes import print_rank_zero
from zero123s.system.base import BaseSystem, Plan, plan_experiment
from zero123s.system.slots import SLOTS

FIRST_STAGE = "system.geometry_convert_from"
STAGED = ("height", "width", "batch_size")
THREESTUDIO_CONFIG = Path("configs", "parsed.yaml")
"""Where threestudio keeps a run's settings in its folder."""
OWN = ("resume", "trial_dir", "overwrite", "description")
"""Keys of the top level that belong to one run alone."""


def plan_run(config: str | Path, overrides: Sequence[str] = (), profile: str = "auto") -> tuple[LoadedConfig, Plan]:
    """Load and check a configuration; a run that `resume=` names keeps its own settings but for the overrides.

    Args:
        config: the YAML file.
        overrides: a dotlist, `a.b=1`.
        profile: "auto", "none", or the name of an overlay in the file.

    Raises:
        ConfigError: what is wrong, where, and what to do.
    """
    import torch

    dotlist = list(overrides)
    chosen = choose_profile(profile, Path(config), dotlist)
    loaded = load_config(config, dotlist, chosen)
    if load_plugins(_imports(loaded)):
        # A plug-in's classes determine the types of its keys.
        loaded = load_config(config, dotlist, chosen)
    resumed = resumed_settings(loaded, dotlist)
    if resumed is None and profile == "auto" and chosen == "cpu" and torch.cuda.is_available():
        print_rank_zero(
            "note: the bundled model guides, so the recipe's profile cpu is chosen, which is made for its images of 64 "
            "pixels; --profile none takes the full sizes."
        )
    loaded = resumed or inherit_first_stage(loaded, dotlist, chosen)
    return loaded, check_experiment(loaded)


def _plain(loaded: LoadedConfig) -> dict[str, Any]:
    """Return an unchecked configuration as dictionaries and lists, its interpolations as they are written."""
    return OmegaConf.to_container(loaded.cfg, resolve=False)  # type: ignore[return-value]


def _imports(loaded: LoadedConfig) -> list[str]:
    """Return the packages that an unchecked configuration imports."""
    given = _plain(loaded).get("imports")
    return [name for name in ([given] if isinstance(given, str) else given or []) if isinstance(name, str)]


def choose_profile(requested: str, config: Path, overrides: Sequence[str] = ()) -> str | None:
    """Return the profile to apply: "auto" is `cpu` if the file has it and there is no CUDA, or the bundled model guides."""
    import torch

    if requested == "none":
        return None
    if requested != "auto":
        return requested
    if "cpu" not in profile_names(config):
        return None
    if not torch.cuda.is_available():
        return "cpu"
    return "cpu" if _is_guided_by_bundled_model(load_config(config, list(overrides))) else None


def _is_guided_by_bundled_model(loaded: LoadedConfig) -> bool:
    from zero123s.diffusion.checkpoint.locate import locate_checkpoint

    guidance = (_plain(loaded).get("system") or {}).get("guidance") or {}
    checkpoint = guidance.get("checkpoint") if isinstance(guidance, dict) else None
    try:
        return isinstance(checkpoint, str) and locate_checkpoint(checkpoint).bundled
    except CheckpointError:  # reported when it is loaded, by a sentence that says how to get it
        return False


def check_experiment(loaded: LoadedConfig) -> Plan:
    """Check a loaded configuration completely, plugins imported; raises ConfigError that names the file."""
    experiment = parse_experiment(loaded)
    load_plugins(experiment.imports)
    try:
        plan = plan_experiment(experiment)
    except ConfigError as error:
        raise ConfigError(loaded.explain(str(error))) from error
    for notice in loaded.notices + plan.notices():
        print_rank_zero(f"note: {notice}")
    return plan


def plan_of_finished_run(config: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Return the plan of a run from its config.yaml, plugins imported; raises ConfigError."""
    loaded = load_config(config, overrides)
    experiment = parse_experiment(loaded)
    load_plugins(experiment.imports)
    return plan_experiment(experiment)


# ------------------------------------------------------------ resumed runs


def resumed_settings(loaded: LoadedConfig, overrides: Sequence[str]) -> LoadedConfig | None:
    """Return the saved configuration of the run that `resume=` names, with the overrides; None without resume.

    Another image, or a YAML file edited since, must not change a resumed run: only overrides do.

    Raises:
        ConfigError: no such run.
    """
    # The file's own data need not be complete: the run's is.
    resolved = resolve(loaded.cfg)
    names = {key: resolved[key] for key in ("name", "exp_root_dir", "resume") if key in resolved}
    experiment = parse_experiment(replace(loaded, cfg=OmegaConf.create(names)))
    if not experiment.resume:
        return None
    checkpoint = find_checkpoint(experiment.resume, experiment)
    own = run_dir_of(checkpoint, experiment) / "config.yaml"
    if not own.is_file() or own.resolve() == loaded.path.resolve():
        return loaded
    print_rank_zero(f"note: going on with the run's own settings, {own}; change them by overrides on the command line.")
    # The folder may have moved since: what `last` meant is not searched again.
    return load_config(own, [*overrides, f"resume={json.dumps(str(checkpoint))}"])


# ------------------------------------------------------------ second stages: `system.geometry_convert_from`


def inherit_first_stage(loaded: LoadedConfig, overrides: Sequence[str], profile: str | None) -> LoadedConfig:
    """Return a configuration merged over the settings of its first stage; unchanged if it has none.

    Slots of another type inherit the keys that both types have and the first run has set away from its default; learning rates of
    single parameters are not inherited if one of them belongs to such a slot. Images and batches begin at the size at
    which the first run ended.

    Raises:
        ConfigError: no such run, or its config.yaml is missing.
    """
    requested = OmegaConf.select(loaded.cfg, FIRST_STAGE, throw_on_missing=False)
    if not isinstance(requested, str) or loaded.is_complete:
        return loaded
    checkpoint, own = _find_first_stage(requested)
    first = load_config(own)
    load_plugins(_imports(first))
    below = _inherited(first.cfg, loaded.cfg)
    dotlist = [*overrides, f"{FIRST_STAGE}={json.dumps(str(checkpoint))}"]
    return load_config(loaded.path, dotlist, profile, below=(str(own), below))


def read_first_stage(path: str, override: Mapping[str, Any] | None = None) -> tuple[BaseSystem, Path]:
    """Return the system of a first stage, without its networks and data, and its checkpoint.

    Args:
        path: its run folder or checkpoint.
        override: settings that replace its geometry's own.

    Raises:
        ConfigError: the run's config.yaml is missing or of another version.
    """
    checkpoint, own = _find_first_stage(path)
    dotlist = [f"system.geometry.{key}={json.dumps(value)}" for key, value in (override or {}).items()]
    return plan_of_finished_run(own, dotlist).build(prepare=False), checkpoint


def _find_first_stage(path: str) -> tuple[Path, Path]:
    checkpoint = checkpoint_at(path)
    if checkpoint is None:
        raise ConfigError(f"{FIRST_STAGE}={path}: no such checkpoint or run folder; name the first stage's.")
    folder = run_dir_around(checkpoint) or checkpoint.parent
    own = next(
        (p for p in (folder / "config.yaml", folder / THREESTUDIO_CONFIG) if p.is_file()), folder / "config.yaml"
    )
    if not own.is_file():
        raise ConfigError(
            f"{FIRST_STAGE}={path}: the first stage's settings, {own}, are missing; keep the run folder whole."
        )
    return checkpoint, own


def _inherited(first: DictConfig, second: DictConfig) -> DictConfig:
    """Return the part of a finished run's settings that a second stage inherits."""
    below = first.copy()
    for key in OWN:
        below.pop(key, None)
    below.get("system", {}).pop("geometry_convert_from", None)
    for section in ("data", "data.random_camera"):
        _use_final_resolution(OmegaConf.select(below, section))
    for slot, registry in SLOTS.items():
        old, new = (OmegaConf.select(cfg, f"system.{slot}_type") for cfg in (first, second))
        if old is not None and new is not None and old != new:
            below.system[slot] = _shared(registry, old, new, OmegaConf.select(first, f"system.{slot}") or {})
            below.system[f"{slot}_type"] = new
            groups = OmegaConf.select(below, "system.optimizer.params") or {}
            if any(str(name).startswith(f"{slot}.") for name in groups):
                below.system.optimizer.pop("params")
    return below


def _use_final_resolution(section: Any) -> None:
    """Keep the last entry of every list with one value per resolution milestone."""
    if not section or not section.get("resolution_milestones"):
        return
    for key in STAGED:
        if isinstance(section.get(key), ListConfig):
            section[key] = section[key][-1]
    section["resolution_milestones"] = []


def _shared(registry: Registry, old: str, new: str, section: Any) -> dict[str, Any]:
    """Return the settings that have the same meaning for another type and differ from the old type's defaults."""
    of_old, of_new = (registry.get(name).Config for name in (old, new))
    common = next(base for base in of_old.__mro__ if issubclass(of_new, base))
    known = getattr(common, "__dataclass_fields__", {})
    defaults = OmegaConf.structured(of_old)
    return {str(k): v for k, v in section.items() if k in known and v != defaults.get(k)}
