"""Configuration: YAML files that inherit, overlays, overrides, and strict typed sections.

Order of precedence, lowest first: `base:` files, the file itself, the chosen entry of `profiles:`, overrides from
the command line. Nothing is written to disk here and no section is accepted that no dataclass describes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException, ValidationError

from zero123s.config.limits import check_expansion, check_yaml_size
from zero123s.config.options import check_values, expand_paths
from zero123s.config.schedule import Schedule
from zero123s.errors import ConfigError
from zero123s.registry import Registry, nearest
from zero123s.runtime.files import user_path

C = TypeVar("C")

MAX_YAML_BYTES = 1_000_000


@dataclass
class LoadedConfig:
    """A merged configuration and where it came from."""

    cfg: DictConfig
    origins: dict[str, str]
    """Full key -> the file, profile or command line that set it last."""
    notices: list[str]
    """Sentences that the user should see once."""
    path: Path
    profile: str | None

    def where(self, message: str) -> str:
        """Return " (set in FILE)" for the first key that a message names, or an empty string."""
        for quoted in re.findall(r"[\w]+(?:\.[\w]+)*", message):
            for key in (quoted, f"system.{quoted}"):
                origin = self.origins.get(key) or self._origin_of_section(key)
                if origin:
                    return f" (set in {origin})"
        return ""

    def _origin_of_section(self, key: str) -> str | None:
        """A section has no origin of its own; it came where its first entry came."""
        return next((o for k, o in self.origins.items() if "." in key and k.startswith(f"{key}.")), None)


# ---------------------------------------------------------------- resolvers


def _peak(value: Any) -> float:
    return Schedule(_plain(value)).max


def _number(value: Any) -> Any:
    """Numbers only: text times a number would be as much text as somebody likes."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"arithmetic wants numbers, got {value!r}")
    return value


def _rmspace(text: Any, sub: Any) -> str:
    if len(str(sub)) > 1:
        raise ConfigError(f"rmspace puts one character in the place of a space, got {str(sub)[:20]!r}")
    return str(text).replace(" ", str(sub))


RESOLVERS = {
    "add": lambda a, b: _number(a) + _number(b),
    "sub": lambda a, b: _number(a) - _number(b),
    "mul": lambda a, b: _number(a) * _number(b),
    "div": lambda a, b: _number(a) / _number(b),
    "idiv": lambda a, b: _number(a) // _number(b),
    "basename": lambda p: Path(str(p)).name,
    "rmspace": _rmspace,
    "tuple2": lambda s: [float(s), float(s)],
    "gt0": lambda s: _peak(s) > 0,  # threestudio's fails on a schedule; this one takes both
    "cmaxgt0": lambda s: _peak(s) > 0,
    "not": lambda s: not s,
    "cmaxgt0orcmaxgt0": lambda a, b: _peak(a) > 0 or _peak(b) > 0,
    "calc_exp_lr_decay_rate": lambda factor, n: float(_number(factor)) ** (1.0 / _number(n)),
}
"""threestudio's arithmetic. None of them runs code, reads a file or the environment."""


def _register_resolvers() -> None:
    # OmegaConf 2.4 renamed the function; 2.3 has only the old name.
    register = getattr(OmegaConf, "register_resolver", None) or OmegaConf.register_new_resolver
    for name, fn in RESOLVERS.items():
        register(name, fn, replace=True)


def _check_resolvers(text: str, where: str) -> None:
    for name in re.findall(r"\$\{\s*([\w.]+)\s*:", text):
        if name not in RESOLVERS:
            raise ConfigError(
                f"{where}: the resolver '${{{name}:...}}' is not allowed.{nearest(name, list(RESOLVERS))} "
                f"Known: {', '.join(RESOLVERS)}."
            )


# ---------------------------------------------------------------- reading and merging


def read_yaml(path: Path) -> DictConfig:
    """Read one YAML file; raises ConfigError for a missing, unreadable, oversized or malformed file."""
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError(f"Config file '{path}' does not exist.{nearest(path.name, siblings)}")
    if path.is_dir():
        raise ConfigError(f"'{path}' is a folder; --config wants a YAML file.")
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(
                f"{path}: {path.stat().st_size} bytes is no configuration; the limit is {MAX_YAML_BYTES}."
            )
        text = path.read_text(encoding="utf-8")
        check_yaml_size(text, path)
        cfg = OmegaConf.create(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}).") from error
    # A date that does not exist is a ValueError of the YAML reader, a file of one word an AssertionError of OmegaConf.
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, AssertionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    _check_resolvers(text, str(path))
    if not isinstance(cfg, DictConfig):
        raise ConfigError(
            f"{path}: expected 'key: value' lines, found a {type(cfg).__name__.removesuffix('Config').lower()}."
        )
    return cfg


def _layers(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, DictConfig]]:
    """Return (origin, config) from the farthest base to the file itself."""
    resolved = path.resolve()
    if resolved in seen:
        raise ConfigError(f"{path}: `base:` goes in a circle: {' -> '.join(p.name for p in (*seen, resolved))}.")
    cfg = read_yaml(path)
    _follow_moved_run(cfg, path)
    base = cfg.pop("base", None)
    names = [base] if isinstance(base, str) else list(base or [])
    layers = [layer for name in names for layer in _layers(path.parent / user_path(name), (*seen, resolved))]
    return [*layers, (str(path), cfg)]


def _follow_moved_run(cfg: Any, path: Path) -> None:
    """Let the paths inside a run folder follow it where it was moved or copied: its config.yaml says where it was."""
    written_in = cfg.pop("trial_dir", None)
    if isinstance(written_in, str) and written_in and (path.parent / "run.json").is_file():
        _replace_prefix(cfg, written_in, str(path.parent.absolute()))


def _replace_prefix(node: Any, old: str, new: str) -> None:
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        value: Any = node._get_node(key)
        if isinstance(value, DictConfig | ListConfig):
            if not value._is_none() and not value._is_interpolation():
                _replace_prefix(value, old, new)
        elif isinstance(value._value(), str) and (value._value() == old or value._value().startswith(f"{old}/")):
            node[key] = new + value._value().removeprefix(old)


def read_overrides(overrides: Sequence[str]) -> DictConfig:
    """Parse `a.b.c=value` words, `a.b.c=` as the empty text; raises ConfigError for a word of another form."""
    # A shell turns key='' into key=, which OmegaConf would read as null.
    overrides = [f'{word}""' if word.endswith("=") and word.count("=") == 1 else word for word in overrides]
    for word in overrides:
        if "=" not in word or word.startswith("-") or not word.split("=", 1)[0].strip():
            raise ConfigError(f"'{word}' is no override; write key.subkey=value (for example trainer.max_steps=100).")
        _check_resolvers(word, f"override '{word}'")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"The overrides {list(overrides)} cannot be read: {' '.join(str(error).split())}") from error


def _leaf_keys(cfg: Any, prefix: str = "") -> list[str]:
    if isinstance(cfg, DictConfig) and len(cfg):
        keys = [(f"{prefix}.{k}" if prefix else str(k), k) for k in cfg]
        return [leaf for full, k in keys for leaf in _leaf_keys(cfg._get_node(k), full)]
    return [prefix]


def _drop_replaced_slots(merged: DictConfig, layer: DictConfig, prefix: str = "") -> list[str]:
    """A layer that changes `x_type` does not inherit the old type's `x` section, nor another optimiser's `args`."""
    notices = []
    for key in list(layer):
        name = str(key).removesuffix("_type")
        # Nodes, not values: interpolations are not resolved before everything is merged.
        old, new = merged._get_node(key), layer._get_node(key)
        if name != key and name in merged and old is not None and old != new:
            del merged[name]
            notices.append(f"{prefix}{key} changed to '{new}': settings of the earlier type are not inherited.")
        elif key == "name" and "args" in merged and old is not None and old != new:
            del merged["args"]
            notices.append(f"{prefix}name changed to '{new}': the args of {old} are not inherited.")
        elif isinstance(old, DictConfig) and isinstance(new, DictConfig):
            notices += _drop_replaced_slots(old, new, f"{prefix}{key}.")
    return notices


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    profile: str | None = None,
    below: tuple[str, DictConfig] | None = None,
) -> LoadedConfig:
    """Read a configuration with its bases, one profile and overrides, unresolved and not yet type-checked.

    Args:
        path: the YAML file.
        overrides: dotlist words, `a.b=1`.
        profile: name of an entry under `profiles:` to lay over the files; None = none.
        below: name and content of settings that the files are laid over.

    Raises:
        ConfigError: in one sentence, for anything wrong with files, profile or overrides.
    """
    _register_resolvers()
    path = user_path(path)
    layers = _layers(path)
    profiles: list[tuple[str, DictConfig]] = []
    known: set[str] = set()
    for origin, cfg in layers:
        entries = cfg.pop("profiles", None) or {}
        known |= {str(k) for k in entries}
        if profile in entries:
            profiles.append((f"{origin} (profile {profile})", entries[profile]))
    if profile is not None and not profiles:
        raise ConfigError(
            f"{path} has no profile '{profile}'.{nearest(profile, sorted(known))} Known: {', '.join(sorted(known)) or 'none'}."
        )
    lowest = [] if below is None else [below]
    layers = [*lowest, *layers, *profiles, ("command line", read_overrides(overrides))]

    merged: Any = OmegaConf.create({})
    origins: dict[str, str] = {}
    notices: list[str] = []
    for origin, cfg in layers:
        notices += _drop_replaced_slots(merged, cfg)
        try:
            merged = OmegaConf.merge(merged, cfg)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{origin}: {' '.join(str(error).split())}") from error
        origins.update(dict.fromkeys(_leaf_keys(cfg), origin))
    assert isinstance(merged, DictConfig)
    return LoadedConfig(merged, origins, notices, path, profile)


def resolve(cfg: DictConfig) -> DictConfig:
    """Return a copy with every `${...}` replaced by its value; raises ConfigError that names the key."""
    cfg = cfg.copy()
    check_expansion(cfg)
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{getattr(error, 'full_key', None) or 'config'}: {_first_line(error)}") from error
    except (ConfigError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"A ${{...}} expression cannot be computed: {_first_line(error)}") from error
    return cfg


# ---------------------------------------------------------------- typed sections


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].strip()


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _known_keys(schema: type, prefix: str) -> list[str]:
    """All full keys below a dataclass, to find the nearest one for a typo."""
    keys = []
    for f in fields(schema):
        keys.append(f"{prefix}{f.name}")
        if is_dataclass(f.type):
            keys += _known_keys(f.type, f"{prefix}{f.name}.")  # type: ignore[arg-type]
    return keys


def _check_keys(schema: type, cfg: Mapping[str, Any], key: str) -> None:
    """Raise ConfigError for the first key that the dataclass lacks, with the nearest that it has."""
    types = {f.name: f.type for f in fields(schema)}
    for name, value in cfg.items():
        full = f"{key}.{name}" if key else str(name)
        if name not in types:
            known = _known_keys(schema, f"{key}." if key else "")
            raise ConfigError(f"Unknown key '{full}'.{nearest(full, known)}")
        if is_dataclass(types[name]) and isinstance(value, Mapping):
            _check_keys(types[name], value, full)  # type: ignore[arg-type]


def parse(schema: type[C], section: Any, key: str = "") -> C:
    """Turn a section into its dataclass, strictly.

    Args:
        schema: a dataclass whose field types OmegaConf understands; nested sections are dataclasses.
        section: a mapping (or None for all defaults), interpolations already resolved.
        key: full key of the section, named in errors.

    Raises:
        ConfigError: unknown key, wrong type, missing value, value out of range; names the full key.
    """
    plain = _plain(section) if section is not None else {}
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{key}: expected a section with keys, got {plain!r}.")
    _check_keys(schema, plain, key)
    try:
        parsed: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))
    except MissingMandatoryValue as error:
        raise ConfigError(f"'{_join(key, error)}' must be given; it has no default.") from error
    except (ValidationError, ConfigKeyError) as error:
        raise ConfigError(f"{_join(key, error)}: {_first_line(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}" if key and key not in str(error) else str(error)) from error
    check_values(parsed, key)
    expand_paths(parsed)
    return parsed


def _join(key: str, error: Exception) -> str:
    inner = getattr(error, "full_key", None) or ""
    return ".".join(part for part in (key, inner) if part)


def parse_slot(registry: Registry, name: str, section: Any, key: str) -> tuple[type, Any]:
    """Return (class, parsed Config) of one slot, for example `geometry_type` and `geometry`."""
    try:
        cls = registry.get(name)
    except ConfigError as error:
        raise ConfigError(f"{key}_type: {error}") from error
    return cls, parse(cls.Config, section, key)


def profile_names(path: str | Path) -> set[str]:
    """Return the names of all profiles that a file and its bases offer."""
    return {str(name) for _, cfg in _layers(user_path(path)) for name in (cfg.get("profiles") or {})}
