"""Overrides `key.subkey=value`.

For a key that takes text it is the text, verbatim, but for `${...}`, `null` where the key may be null, and quotes
around the whole, which are removed. For any other key it is YAML.
"""

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, NamedTuple, Union, get_args, get_origin

from zero123s.config.interpolation import check_resolvers
from zero123s.config.options import ENTRIES, SLOT, type_hints
from zero123s.config.yaml_files import parse_yaml
from zero123s.errors import ConfigError
from zero123s.registry import REGISTRIES

NULL = "!!null"
"""YAML's null where the bare word would be text: None in a mapping of Python values."""


class Override(NamedTuple):
    """One override of the command line."""

    parts: tuple[str, ...]
    """Its key, one name or index per part."""
    text: str

    @property
    def key(self) -> str:
        """The key with dots."""
        return ".".join(self.parts)


def read_overrides(dotlist: Sequence[str]) -> list[Override]:
    """Split `a.b.c=value` overrides, `a.b[0]=value` as `a.b.0=value`; raises ConfigError for one of another form."""
    overrides = []
    for word in dotlist:
        key, equals, text = word.partition("=")
        parts = tuple(re.split(r"[.\[]", key.strip().replace("]", "")))
        if not equals or word.startswith("-") or not all(parts):
            raise ConfigError(
                f"'{word}' is not an override; write key.subkey=value (for example trainer.max_steps=100)."
            )
        check_resolvers(text, f"override '{word}'")
        overrides.append(Override(parts, text))
    return overrides


def value_of(text: str, kind: Any) -> Any:
    """Return the value that the text after the equals sign has for a key of type `kind`; None = an unknown type."""
    if is_text(kind):
        is_null = text == NULL or (text == "null" and kind is not str)
        return None if is_null else _without_quotes(text)
    if is_list_of_text(kind):
        entries = _yaml(text, as_text=True)
        return entries if isinstance(entries, list) else None if text == NULL else _without_quotes(text) or []
    return _yaml(text) if text else ""


def _yaml(text: str, as_text: bool = False) -> Any:
    """Return the YAML value; the text itself if it is not valid YAML, for the type check to report."""
    try:
        value = parse_yaml(text, "override")[as_text]
    except ConfigError:
        return text
    # All of `#ffffff` is a comment.
    return text if value is None and text.strip().lower() not in ("null", "~", NULL) else value


def _without_quotes(text: str) -> str:
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'":
        inner = _yaml(stripped, as_text=True)
        if isinstance(inner, str) and inner != stripped:
            return inner
    return text


# ---------------------------------------------------------------- types of keys


def is_text(kind: Any) -> bool:
    """Tell whether a type is `str` or `str | None`."""
    return kind is str or (get_origin(kind) in (Union, types.UnionType) and set(get_args(kind)) == {str, type(None)})


def is_list_of_text(kind: Any) -> bool:
    """Tell whether a type is `list[str]`."""
    return get_origin(kind) is list and get_args(kind) == (str,)


def type_at(schema: type, parts: Sequence[str], cfg: Any) -> Any:
    """Return the type of a key, through the slots that a configuration selects; None if unknown.

    A field `x` with a field `x_type` in the same section is the slot `x`: its keys are those of the registered class.

    Args:
        schema: dataclass of the section `cfg`.
        parts: the key below it.
        cfg: the section as plain values; only its `_type` keys matter.
    """
    try:
        hints = type_hints(schema)
    except NameError:  # a plugin's annotation that only a type checker can resolve
        return None
    known = {f.name: f for f in fields(schema)}
    name, *rest = parts
    kind, section = hints.get(name), _get(cfg, name)
    if not rest or name not in known:
        return kind
    if get_origin(kind) is list and rest[0].isdigit():
        if len(rest) == 1:
            return get_args(kind)[0]
        inner, rest, section = known[name].metadata.get(ENTRIES), rest[1:], _get(section, rest[0])
    else:
        inner = kind if is_dataclass(kind) else _slot_config(known, name, cfg)
    return type_at(inner, rest, section) if inner else None  # type: ignore[arg-type]


def _slot_config(known: Mapping[str, Field], name: str, cfg: Any) -> type | None:
    slot, type_key = known[name].metadata.get(SLOT, (name, f"{name}_type"))
    if slot not in REGISTRIES or type_key not in known:
        return None
    chosen = _get(cfg, type_key)
    if chosen is None and known[type_key].default is not MISSING:
        chosen = known[type_key].default
    return REGISTRIES[slot].get(str(chosen)).Config if chosen in REGISTRIES[slot] else None


def _get(cfg: Any, name: str) -> Any:
    if isinstance(cfg, Mapping):
        return cfg.get(name)
    return cfg[int(name)] if isinstance(cfg, list) and name.isdigit() and int(name) < len(cfg) else None


def keep_text(content: Any, written: Any, schema: type, cfg: Any, parts: tuple[str, ...] = ()) -> Any:
    """Return the content of a YAML file with `tag: 007` and `tag: no` as text, wherever the key takes text.

    Args:
        content: the file's values, or those of its section `parts`.
        written: the same with every scalar as text.
        schema: dataclass of the whole configuration.
        cfg: the whole configuration, which says what the slots are.
    """
    if isinstance(content, dict) and isinstance(written, dict):
        return {k: keep_text(v, written.get(str(k)), schema, cfg, (*parts, str(k))) for k, v in content.items()}
    if isinstance(content, list) and isinstance(written, list) and len(content) == len(written):
        pairs = enumerate(zip(content, written, strict=True))
        return [keep_text(v, w, schema, cfg, (*parts, str(i))) for i, (v, w) in pairs]
    is_number = isinstance(content, bool | int | float) and isinstance(written, str)
    return written if is_number and is_text(type_at(schema, parts, cfg)) else content
