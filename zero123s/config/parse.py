"""Strictly typed sections: a mapping becomes the dataclass that describes it, or raises a one-sentence error."""

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass, make_dataclass
from typing import Any, TypeVar, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zero123s.config.interpolation import plain
from zero123s.config.options import check_values, default_of, expand_paths, has_default, type_hints
from zero123s.config.overrides import is_list_of_text
from zero123s.errors import ConfigError
from zero123s.registry import Registry, nearest

C = TypeVar("C")

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_BOOLS = {word: word in _TRUE for word in _TRUE + _FALSE}
_REQUIRED = "???"
"""OmegaConf's marker of a value without a default."""


def parse(schema: type[C], section: Any, key: str = "") -> C:
    """Turn a section into its dataclass, strictly.

    Args:
        schema: a dataclass; its nested sections are dataclasses, other types as OmegaConf understands them.
        section: a mapping, interpolations already resolved; None or "" = all defaults.
        key: full key of the section, named in errors.

    Raises:
        ConfigError: unknown key, wrong type, missing value, value out of range; names the full key.
    """
    parsed = _section(schema, plain(section), key)
    check_values(parsed, key)
    expand_paths(parsed)
    return parsed


def parse_slot(registry: Registry, name: str, section: Any, key: str) -> tuple[type, Any]:
    """Return (class, parsed Config) of one slot, for example `geometry_type` and `geometry`."""
    try:
        cls = registry.get(name)
    except ConfigError as error:
        raise ConfigError(f"{key}_type: {error}") from error
    return cls, parse(cls.Config, section, key)


def _known_keys(schema: type, prefix: str) -> list[str]:
    """List all full keys below a dataclass, to suggest the nearest one for a typo."""
    keys = []
    for f in fields(schema):
        keys.append(f"{prefix}{f.name}")
        if is_dataclass(f.type):
            keys += _known_keys(f.type, f"{prefix}{f.name}.")  # type: ignore[arg-type]
    return keys


def _section(schema: type[C], given: Any, key: str) -> C:
    if given is None or given == "":
        given = {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key or 'config'}: expected a section with keys, got {_format_value(given)}.")
    known = {f.name: f for f in fields(schema)}  # type: ignore[arg-type]
    prefix = f"{key}." if key else ""
    for name in given:
        if name not in known:
            full = f"{prefix}{name}"
            raise ConfigError(f"Unknown key '{full}'.{nearest(full, _known_keys(schema, prefix))}")
    for name, f in known.items():
        if given.get(name) == _REQUIRED or (name not in given and not has_default(f)):
            raise ConfigError(f"'{prefix}{name}' must be given; it has no default.")
    try:
        hints = type_hints(schema)
    except NameError:  # an annotation that only a type checker can resolve
        hints = {}
    values = {
        name: _value(hints.get(name, Any), value, f"{prefix}{name}", known[name]) for name, value in given.items()
    }
    try:
        return schema(**values)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}" if key and key not in str(error) else str(error)) from error


def _value(kind: Any, value: Any, key: str, f: Field | None = None) -> Any:
    """Return a value converted to the type of its field; raises ConfigError that says what is expected."""
    if kind is Any:
        return value
    if kind in _TYPE_NAMES:
        return _scalar(kind, value, key)
    if is_dataclass(kind):
        return _section(kind, value, key)  # type: ignore[arg-type]
    options = get_args(kind)
    if type(None) in options and len(options) == 2:
        (inner,) = (o for o in options if o is not type(None))
        return None if value is None else _value(inner, value, key, f)
    if get_origin(kind) in (list, dict):
        return _container(kind, value, key, f)
    return _converted_by_omegaconf(kind, value, key)


def _container(kind: Any, value: Any, key: str, f: Field | None) -> Any:
    """Return a list or a mapping with every entry converted; a single text is split at its commas."""
    options = get_args(kind)
    if get_origin(kind) is dict:
        if value not in (None, "") and not isinstance(value, Mapping):
            raise ConfigError(f"{key}: expected a section with keys, got {_format_value(value)}.")
        return {k: _value(options[1], v, f"{key}.{k}") for k, v in (value or {}).items()}
    default = default_of(f) if f and has_default(f) else None
    if is_list_of_text(kind) and isinstance(value, str) and value:
        value = [word.strip() for word in value.split(",")]
    if isinstance(value, Mapping) and value and isinstance(default, list) and all(str(k).isdigit() for k in value):
        value = _with_entries(default, value, key)
    if not isinstance(value, list | tuple):
        example = f" such as {_format_value(default)}" if default else ""
        raise ConfigError(f"{key}: expected a list{example}, got {_format_value(value)}.")
    return [_value(options[0], v, f"{key}.{i}") for i, v in enumerate(value)]


def _with_entries(default: list[Any], entries: Mapping[Any, Any], key: str) -> list[Any]:
    """Return a default list with the entries that `key.0=value` sets replaced; raises ConfigError."""
    value = list(default)
    for index, entry in entries.items():
        if int(index) >= len(value):
            known = f"its entries are {key}.0 to {key}.{len(value) - 1}" if value else "it is empty"
            raise ConfigError(f"{key}.{index}: {key} is a list of {len(value)}; {known}.")
        value[int(index)] = entry
    return value


def _scalar(kind: type, value: Any, key: str) -> Any:
    """Return text, a number or a boolean, parsed from text if need be: "5" is a whole number, 5.5 is not one."""
    is_scalar = isinstance(value, str | bool | int | float)
    try:
        if kind is bool and is_scalar:
            return _BOOLS[str(value).lower()]
        if kind is str and is_scalar:
            return str(value)
        is_fraction = kind is int and isinstance(value, float) and value != int(value)
        if is_scalar and not isinstance(value, bool) and not is_fraction:
            return kind(value)
    except (KeyError, ValueError, OverflowError):
        pass
    raise ConfigError(f"{key}: expected {_TYPE_NAMES[kind]}, got {_format_value(value)}.")


def _converted_by_omegaconf(kind: Any, value: Any, key: str) -> Any:
    """Return a value of a type that only plugins use, such as `dict[str, int]`, `Literal` or an enumeration."""
    schema = make_dataclass("Value", [("value", kind)])
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), {"value": value})).value  # type: ignore[union-attr]
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {str(error).split(chr(10), 1)[0].strip()}") from error


def _format_value(value: Any) -> str:
    """Return a value as in YAML, shortened."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
