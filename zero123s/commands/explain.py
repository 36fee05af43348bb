"""Documentation of every configuration key, from the dataclasses themselves: `--explain KEY` and docs/configuration.md.

`python -m zero123s.commands.explain > docs/configuration.md` writes the page anew.
"""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any, get_origin

from zero123s.config.experiment import ExperimentConfig
from zero123s.config.options import default_of, describe_limits, field_docs
from zero123s.errors import ConfigError
from zero123s.losses import loss_config
from zero123s.registry import Registry, nearest

INTRO = """# Configuration

Every key of every YAML file, generated from the Config classes by `python -m zero123s.commands.explain`; do not edit by
hand. `python launch.py --config FILE --explain system.loss.lambda_sds` prints the same for one key, with its present
value and where that was set. Values marked "number or schedule" also take `[start_value, end_value, end_step]`,
`[start_step, start_value, end_value, end_step, value, step, ...]` and `{step: value}`, always in global steps.
"""


@dataclass(frozen=True)
class KeyDoc:
    """The documentation of one key."""

    key: str
    type: str
    default: Any
    limits: str
    doc: str


def describe_type(f: Field) -> str:
    """Return a field's type in YAML terms."""
    is_plain = isinstance(f.type, type) and get_origin(f.type) is None
    text = f.type if isinstance(f.type, str) else f.type.__name__ if is_plain else str(f.type)
    return text.replace("typing.", "").replace("None", "null").replace("Any", "any")


def key_docs(schema: type, prefix: str = "") -> Iterator[KeyDoc]:
    """Yield every leaf key of a Config dataclass, nested sections included."""
    docs = field_docs(schema)
    for f in fields(schema):
        key = f"{prefix}.{f.name}" if prefix else f.name
        if is_dataclass(f.type):
            yield from key_docs(f.type, key)  # type: ignore[arg-type]
        else:
            yield KeyDoc(key, describe_type(f), default_of(f), describe_limits(f), docs.get(f.name, ""))


def explain(key: str, experiment: ExperimentConfig, origins: Mapping[str, str]) -> str:
    """Return the documentation of a key or of all keys of a section, with current values and where they were set.

    Raises:
        ConfigError: an unknown key; names the nearest.
    """
    found = {d.key: (d, value) for d, value in _present(experiment)}
    matching = [k for k in found if k == key or k.startswith(f"{key}.")]
    if not matching:
        raise ConfigError(f"Unknown key '{key}'.{nearest(key, list(found))}")
    return "\n\n".join(_explained(*found[k], origins) for k in matching)


def _explained(doc: KeyDoc, value: Any, origins: Mapping[str, str]) -> str:
    origin = origins.get(doc.key) or next((o for k, o in origins.items() if k.startswith(f"{doc.key}.")), "default")
    limits = f", {doc.limits}" if doc.limits else ""
    lines = [
        f"{doc.key}: {doc.doc}",
        f"  type: {doc.type}{limits}",
        f"  default: {doc.default!r}",
        f"  value: {value!r} (from {origin})",
    ]
    return "\n".join(lines)


def _present(config: Any, prefix: str = "") -> Iterator[tuple[KeyDoc, Any]]:
    """Yield documentation and current value of every leaf of a parsed configuration, slots included."""
    docs = field_docs(type(config))
    for f in fields(config):
        key = f"{prefix}.{f.name}" if prefix else f.name
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _present(value, key)
        else:
            yield KeyDoc(key, describe_type(f), default_of(f), describe_limits(f), docs.get(f.name, "")), value


# ---------------------------------------------------------------- the page


def configuration_page(slots: Mapping[str, Registry]) -> str:
    """Return docs/configuration.md.

    Args:
        slots: full key of a slot ("system.geometry") -> its registry.
    """
    parts = [INTRO, "## Top level\n", _table(ExperimentConfig, "")]
    for key, registry in slots.items():
        parts.append(f"## {key}\n\nChosen by `{key}_type`.\n")
        for name in registry:
            cls = registry.get(name)
            if not cls.__module__.startswith("zero123s."):
                continue  # a plugin documents itself
            summary = (cls.__doc__ or "").strip().split("\n")[0]
            parts.append(f"### `{name}`\n\n{summary}\n")
            parts.append(_table(cls.Config, key))  # type: ignore[attr-defined]
        if key == "system":
            parts.append("### Losses\n\nOf `zero123-system`.\n")
            parts.append(_table(loss_config(), "system.loss"))
    return "\n".join(parts)


def _table(schema: type, prefix: str) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for d in key_docs(schema, prefix):
        limits = f" ({d.limits})" if d.limits else ""
        cells = (f"`{d.key}`", f"{d.type}{limits}", f"`{_short(d.default)}`", d.doc)
        rows.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(rows) + "\n"


def _short(value: Any) -> str:
    """Return a default as in YAML."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def all_slots() -> dict[str, Registry]:
    """Return the registries of every slot by its full key."""
    from zero123s.data import DATA
    from zero123s.system import SYSTEMS
    from zero123s.system.slots import SLOTS

    return {"data": DATA, "system": SYSTEMS, **{f"system.{slot}": registry for slot, registry in SLOTS.items()}}


if __name__ == "__main__":
    print(configuration_page(all_slots()), end="")
