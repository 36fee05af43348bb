"""What a configuration may not do to the machine that reads it: a few lines that stand for more than there is memory."""

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from zero123s.errors import ConfigError

MAX_YAML_EVENTS = 100_000
MAX_YAML_DEPTH = 40
MAX_EXPANDED = 1_000_000
"""Characters of all values after every `${...}` has been replaced."""
_REFERENCE = re.compile(r"\$\{\s*([^{}:]*?)\s*\}")
_COMPUTED_NAME = re.compile(r"\$\{[^{}:]*\$\{")


def check_yaml_size(text: str, path: Path) -> None:
    """Refuse alias bombs and endless nesting before anything expands them; raises ConfigError."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}: YAML aliases (*name) are not supported; write ${{other.key}} instead.")
        depth += isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
        depth -= isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
        if depth > MAX_YAML_DEPTH or count > MAX_YAML_EVENTS:
            raise ConfigError(f"{path}: nested too deeply or too large to be a configuration.")


def check_expansion(cfg: DictConfig) -> None:
    """Refuse `${...}` that double each other, or go in circles, before anything follows them; raises ConfigError."""
    raw = OmegaConf.to_container(cfg, resolve=False)
    sizes: dict[tuple[str, ...], int] = {}

    def size_at(key: tuple[str, ...], chain: tuple[tuple[str, ...], ...]) -> int:
        if key in chain or len(chain) > MAX_YAML_DEPTH:
            raise ConfigError(f"{'.'.join(key)}: its ${{...}} go in a circle, or through too many others.")
        if key not in sizes:
            sizes[key] = size_of(_at(raw, key), key, (*chain, key))
        return sizes[key]

    def size_of(value: Any, key: tuple[str, ...], chain: tuple[tuple[str, ...], ...]) -> int:
        if isinstance(value, dict):
            total = sum(size_of(v, (*key, str(k)), chain) for k, v in value.items())
        elif isinstance(value, list):
            total = sum(size_of(v, (*key, str(i)), chain) for i, v in enumerate(value))
        elif isinstance(value, str):
            if _COMPUTED_NAME.search(value):
                raise ConfigError(f"{'.'.join(key)}: names inside names, ${{a.${{b}}}}, are not supported.")
            total = len(value) + sum(size_at(_absolute(name, key), chain) for name in _REFERENCE.findall(value))
        else:
            total = 8
        if total > MAX_EXPANDED:
            raise ConfigError(
                f"{'.'.join(key) or 'config'}: its ${{...}} expand to more than {MAX_EXPANDED} characters."
            )
        return total

    size_of(raw, (), ())


def _absolute(name: str, key: tuple[str, ...]) -> tuple[str, ...]:
    """Return the full key of a reference made in the value of `key`; each leading dot goes up one section."""
    parts = tuple(p for p in re.split(r"[.\[\]]+", name) if p)
    dots = len(name) - len(name.lstrip("."))
    return (*key[: max(0, len(key) - dots)], *parts) if dots else parts


def _at(raw: Any, key: tuple[str, ...]) -> Any:
    """Return what lies at a key, None where nothing does: OmegaConf itself will say so."""
    for part in key:
        if isinstance(raw, list) and part.isdigit() and int(part) < len(raw):
            raw = raw[int(part)]
        else:
            raw = raw.get(part) if isinstance(raw, dict) else None
    return raw
