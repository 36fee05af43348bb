"""Configuration: YAML files that inherit, overlays and overrides, merged.

Order of precedence, lowest first: `base:` files, the file itself, the chosen entry of `profiles:`, overrides from
the command line. Nothing is written to disk here and no section is accepted that no dataclass describes.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zero123s.config import threestudio
from zero123s.config.experiment import ExperimentConfig
from zero123s.config.interpolation import check_resolvers, register_resolvers
from zero123s.config.loaded import COMMAND_LINE, LoadedConfig
from zero123s.config.overrides import Override, keep_text, read_overrides, type_at, value_of
from zero123s.config.yaml_files import read_yaml
from zero123s.errors import ConfigError
from zero123s.registry import nearest
from zero123s.runtime.files import user_path


@dataclass
class _Layer:
    """One file, profile or command line."""

    origin: str
    content: dict[Any, Any]
    written: Any = None
    """The same with every scalar as it was written; None = the content's types are right as they are."""


# ---------------------------------------------------------------- files


def _layers(path: Path, ancestors: tuple[Path, ...] = ()) -> list[_Layer]:
    """Return the layers from the farthest base to the file itself."""
    resolved = path.resolve()
    if resolved in ancestors:
        raise ConfigError(f"{path}: `base:` goes in a circle: {' -> '.join(p.name for p in (*ancestors, resolved))}.")
    content, written = read_yaml(path)
    check_resolvers(str(written), str(path))
    written_in = content.pop("trial_dir", None)
    if isinstance(written_in, str) and written_in and (path.parent / "run.json").is_file():
        # A run folder that was moved or copied: the paths inside it follow.
        content = _with_prefix(content, written_in, str(path.parent.absolute()))
    base = content.pop("base", None) or []
    names = [base] if isinstance(base, str) else base
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: base: expected the name of a file, or a list of names, got {base!r}.")
    layers = [layer for name in names for layer in _layers(path.parent / user_path(name), (*ancestors, resolved))]
    return [*layers, _Layer(str(path), content, written)]


def _with_prefix(value: Any, old: str, new: str) -> Any:
    """Return a value with every path inside the folder `old` moved to `new`."""
    if isinstance(value, dict):
        return {k: _with_prefix(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_prefix(v, old, new) for v in value]
    is_inside = isinstance(value, str) and (value == old or value.startswith(f"{old}/"))
    return new + value.removeprefix(old) if is_inside else value


def _split_profiles(layer: _Layer) -> dict[str, _Layer]:
    """Remove `profiles:` from a file's layer and return them by name."""
    entries, written = layer.content.pop("profiles", None) or {}, layer.written.get("profiles") or {}
    if not isinstance(entries, dict) or not all(isinstance(e, dict | None) for e in entries.values()):
        raise ConfigError(f"{layer.origin}: profiles: expected `name: {{key: value}}`, got {str(entries)[:80]}.")
    return {
        str(name): _Layer(f"{layer.origin} (profile {name})", entry or {}, written.get(str(name)))
        for name, entry in entries.items()
    }


def profile_names(path: str | Path) -> set[str]:
    """Return the names of all profiles in a file and its bases."""
    return {name for layer in _layers(user_path(path)) for name in _split_profiles(layer)}


# ---------------------------------------------------------------- merging


def _is_section(value: Any) -> bool:
    """Distinguish a section from a value; a schedule `{step: value}` is a value."""
    return isinstance(value, dict) and not (value and all(str(k).isdigit() for k in value))


def _merge(below: dict[Any, Any], above: dict[Any, Any], notices: list[str], prefix: str = "") -> dict[Any, Any]:
    """Return `above` merged over `below`: section by section, everything else replaced.

    Raises:
        ConfigError: a value in the place of a section.
    """
    out = dict(below)
    _drop_replaced(out, above, notices, prefix)
    for key, value in above.items():
        old = out.get(key)
        if not _is_section(old) or (isinstance(value, str) and "${" in value):
            out[key] = value
        elif _is_section(value):
            out[key] = _merge(old, value, notices, f"{prefix}{key}.")  # type: ignore[arg-type]
        elif value not in (None, ""):  # an empty section says nothing
            raise ConfigError(f"{prefix}{key}: expected a section with keys, got {str(value)[:80]!r}.")
    return out


def _drop_replaced(out: dict[Any, Any], above: dict[Any, Any], notices: list[str], prefix: str) -> None:
    """A layer that changes `x_type` does not inherit the old type's `x` section, nor another optimiser's `args`."""
    for key, new in above.items():
        old, slot = out.get(key), str(key).removesuffix("_type")
        if old is None or old == new:
            continue
        if slot != key and slot in out:
            del out[slot]
            notices.append(f"{prefix}{key} changed to '{new}': settings of the earlier type are not inherited.")
        elif key == "name" and "args" in out:
            del out["args"]
            notices.append(f"{prefix}name changed to '{new}': the args of {old} are not inherited.")


def _nested(given: Sequence[tuple[Override, Any]]) -> dict[Any, Any]:
    content: dict[Any, Any] = {}
    for override, value in given:
        section = reduce(lambda inner, part: {part: inner}, reversed(override.parts), value)
        content = _merge(content, section, [])
    return content


def _set_entry(container: Any, parts: tuple[str, ...], value: Any, key: str = "") -> Any:
    """Return a copy of a section or list in which the entry at `parts` is replaced; `key` is its own, for errors."""
    name, *rest = parts
    full = f"{key}.{name}" if key else name
    if isinstance(container, list):
        if not name.isdigit() or int(name) >= len(container):
            known = f"{key}.0 to {key}.{len(container) - 1}" if container else "it is empty"
            raise ConfigError(f"{full}: {key} is a list of {len(container)}; its entries are {known}.")
        entries = list(container)
        entries[int(name)] = _set_entry(entries[int(name)], tuple(rest), value, full) if rest else value
        return entries
    if not isinstance(container, dict):
        raise ConfigError(f"{key}: expected a list or a section for '{full}', it is {container!r}.")
    same = next((k for k in container if str(k) == name), int(name) if name.isdigit() else name)
    inner = _set_entry(container.get(same, {}), tuple(rest), value, full) if rest else value
    return {**container, same: inner}


def _is_indexed(override: Override, cfg: Any) -> bool:
    """Tell whether an override indexes into a list, or sets a step of a schedule."""
    for part in override.parts[:-1]:
        cfg = cfg.get(part) if isinstance(cfg, dict) else None
        if isinstance(cfg, list) or (isinstance(cfg, dict) and cfg and not _is_section(cfg)):
            return True
    return False


# ---------------------------------------------------------------- loading


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    profile: str | None = None,
    below: tuple[str, DictConfig] | None = None,
) -> LoadedConfig:
    """Read a configuration with its bases, one profile and overrides, unresolved and not yet type-checked.

    The text of an override is read as the type of its key requires, see `zero123s.config.overrides`; for this the
    packages of the slots must have been imported, and plugins that bring types of their own.

    Args:
        path: the YAML file.
        overrides: `a.b=1` and so on.
        profile: name of an entry under `profiles:` to lay over the files; None = none.
        below: name and content of settings that the files are laid over.

    Raises:
        ConfigError: in one sentence, for anything wrong with files, profile or overrides.
    """
    register_resolvers()
    path = user_path(path)
    overridden = read_overrides(overrides)
    layers = _layers_with_profile(path, profile)
    if below is not None:
        layers.insert(0, _Layer(below[0], OmegaConf.to_container(below[1], resolve=False)))  # type: ignore[arg-type]

    if threestudio.is_recipe(_types_chosen(layers, overridden)):
        return _load_recipe(layers, overridden, path, profile)
    chosen = _types_chosen(layers, overridden)
    known = partial(_is_known, chosen)
    overridden, notices = _translated(overridden, known)
    for layer in layers:
        notices += threestudio.translate(layer.content, known)
        if layer.written is not None:
            threestudio.translate(layer.written, known)
        layer.content = keep_text(layer.content, layer.written, ExperimentConfig, chosen)

    values = [value_of(w.text, type_at(ExperimentConfig, w.parts, chosen)) for w in overridden]
    given = list(zip(overridden, values, strict=True))
    typed = _Layer(COMMAND_LINE, _nested([(w, v) for w, v in given if not _is_indexed(w, chosen)]))
    notices += threestudio.translate(typed.content, known)

    merged: dict[Any, Any] = {}
    origins: dict[str, str] = {}
    for layer in (*layers, typed):
        merged = _merged(merged, layer, notices)
        for key in _leaf_keys(layer.content):
            origins[key] = layer.origin
            while key := key.rpartition(".")[0]:
                origins.pop(key, None)  # a value in a lower layer, a section now
    for word, value in given:
        if _is_indexed(word, chosen):
            merged = _set_entry(merged, word.parts, value)
            origins |= dict.fromkeys((word.key, word.key.rpartition(".")[0]), COMMAND_LINE)
    return _loaded(merged, origins, notices, path, profile)


def _loaded(
    merged: dict[Any, Any],
    origins: dict[str, str],
    notices: list[str],
    path: Path,
    profile: str | None,
    is_complete: bool = False,
) -> LoadedConfig:
    try:
        return LoadedConfig(OmegaConf.create(merged), origins, notices, path, profile, is_complete)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise ConfigError(f"{path}: {key}: {' '.join(str(error).split())}") from error


def _types_chosen(layers: Sequence[_Layer], overridden: Sequence[Override]) -> dict[Any, Any]:
    """Return everything merged once, so that its `x_type` keys give the types of all other keys."""
    chosen: dict[Any, Any] = {}
    for layer in layers:
        chosen = _merged(chosen, layer, [])
    for word in overridden:
        if word.parts[-1].endswith("type"):
            chosen = _set_entry(chosen, word.parts, word.text)
    return chosen


def _is_known(chosen: dict[Any, Any], key: str) -> bool:
    return type_at(ExperimentConfig, tuple(key.split(".")), chosen) is not None


def _translated(overridden: Sequence[Override], known: Callable[[str], bool]) -> tuple[list[Override], list[str]]:
    """Return the overrides with threestudio's keys renamed, and a notice for each."""
    keys = [threestudio.new_key(w.key, known) for w in overridden]
    notices = [threestudio.renamed_notice(w.key, k) for w, k in zip(overridden, keys, strict=True) if k != w.key]
    return [w._replace(parts=tuple(k.split("."))) for w, k in zip(overridden, keys, strict=True)], notices


# ---------------------------------------------------------------- threestudio's own files


def _load_recipe(
    layers: Sequence[_Layer], overridden: Sequence[Override], path: Path, profile: str | None
) -> LoadedConfig:
    """Merge a threestudio file with overrides under either project's keys, and translate the result.

    It is complete: threestudio's second stages inherit no settings of their first.
    """
    merged: dict[Any, Any] = {}
    for layer in layers:
        content = keep_text(layer.content, layer.written, ExperimentConfig, {})
        merged = _overlaid(merged, _keep_text_values(content, layer.written))
    native = deepcopy(merged)
    if not overridden:
        notices = threestudio.to_native(native)
        return _loaded(native, dict.fromkeys(_leaf_keys(native), str(path)), notices, path, profile, is_complete=True)
    before = _translated_if_possible(native)
    for word in overridden:
        kind = str if word.parts[-1] in TEXT_KEYS else type_at(ExperimentConfig, word.parts, before)
        merged = _without_key(merged, threestudio.other_name(word.key))
        merged = _set_entry(merged, word.parts, value_of(word.text, kind))
    notices = threestudio.to_native(merged)
    old = dict(_leaves(before))
    origins = {k: str(path) if k in old and old[k] == v else COMMAND_LINE for k, v in _leaves(merged)}
    return _loaded(merged, origins, notices, path, profile, is_complete=True)


TEXT_KEYS = {
    *("prompt", "negative_prompt", "prompt_front", "prompt_side", "prompt_back", "prompt_overhead"),
    *("pretrained_model_name_or_path", "pretrained_model_name_or_path_lora", "image_path", "cond_image_path"),
}
"""Keys of threestudio's sections whose values are always text."""


def _translated_if_possible(content: dict[Any, Any]) -> dict[Any, Any]:
    """Return the translation of a file; the file itself if it is only translatable with overrides."""
    try:
        translated = deepcopy(content)
        threestudio.to_native(translated)
    except ConfigError:
        return content
    return translated


def _overlaid(below: dict[Any, Any], above: dict[Any, Any]) -> dict[Any, Any]:
    """Return `above` merged over `below`, as threestudio merges: sections of other types are kept."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(old, dict) and _is_section(old) and _is_section(value)
        out[key] = _overlaid(old, value) if both else value  # type: ignore[arg-type]
    return out


def _keep_text_values(content: Any, written: Any) -> Any:
    """Return content with every value of TEXT_KEYS as the text in the file."""
    if not isinstance(content, dict) or not isinstance(written, dict):
        return content
    out = {}
    for key, value in content.items():
        text = written.get(str(key))
        is_number = str(key) in TEXT_KEYS and isinstance(value, bool | int | float) and isinstance(text, str)
        out[key] = text if is_number else _keep_text_values(value, text)
    return out


def _without_key(content: dict[Any, Any], key: str | None) -> dict[Any, Any]:
    """Return a copy of content without a key, if it is there."""
    if key is None:
        return content
    name, _, rest = key.partition(".")
    if not isinstance(content, dict) or name not in content:
        return content
    if not rest:
        return {k: v for k, v in content.items() if k != name}
    return {**content, name: _without_key(content[name], rest)}


def _leaves(content: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if _is_section(content) and content:
        found = [_leaves(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in content.items()]
        return [leaf for leaves in found for leaf in leaves]
    return [(prefix, content)]


def _layers_with_profile(path: Path, profile: str | None) -> list[_Layer]:
    files = _layers(path)
    offered = [_split_profiles(layer) for layer in files]
    chosen = [profiles[profile] for profiles in offered if profile in profiles]
    if profile is not None and not chosen:
        known = sorted({name for profiles in offered for name in profiles})
        raise ConfigError(
            f"{path} has no profile '{profile}'.{nearest(profile, known)} Known: {', '.join(known) or 'none'}."
        )
    return [*files, *chosen]


def _merged(below: dict[Any, Any], layer: _Layer, notices: list[str]) -> dict[Any, Any]:
    try:
        return _merge(below, layer.content, notices)
    except ConfigError as error:
        raise ConfigError(f"{error} (set in {layer.origin})") from error


def _leaf_keys(content: Any, prefix: str = "") -> list[str]:
    if _is_section(content) and content:
        keys = [(f"{prefix}.{k}" if prefix else str(k), v) for k, v in content.items()]
        return [leaf for full, v in keys for leaf in _leaf_keys(v, full)]
    return [prefix]
