"""`${...}` in a configuration: other keys, and threestudio's arithmetic. None of it runs code or reads a file."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zero123s.config.schedule import Schedule
from zero123s.errors import ConfigError
from zero123s.registry import nearest

MAX_CHAIN = 40
MAX_EXPANDED = 1_000_000
"""Characters of all values after every `${...}` has been replaced."""
_REFERENCE = re.compile(r"\$\{\s*([^{}:]*?)\s*\}")
_COMPUTED_NAME = re.compile(r"\$\{[^{}:]*\$\{")


def plain(value: Any) -> Any:
    """Return an OmegaConf container as dicts and lists, resolved; anything else unchanged."""
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _peak(value: Any) -> float:
    return Schedule(plain(value)).max


def _number(value: Any) -> Any:
    """Accept numbers only: text times a number could become arbitrarily long."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"arithmetic needs numbers, got {value!r}")
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
"""threestudio's arithmetic."""


def register_resolvers() -> None:
    """Register RESOLVERS with OmegaConf."""
    # OmegaConf 2.4 renamed the function; 2.3 has only the old name.
    register = getattr(OmegaConf, "register_resolver", None) or OmegaConf.register_new_resolver
    for name, fn in RESOLVERS.items():
        register(name, fn, replace=True)


def check_resolvers(text: str, where: str) -> None:
    """Raise ConfigError for a `${name:...}` that is not in RESOLVERS."""
    for name in re.findall(r"\$\{\s*([\w.]+)\s*:", text):
        if name not in RESOLVERS:
            raise ConfigError(
                f"{where}: the resolver '${{{name}:...}}' is not allowed.{nearest(name, list(RESOLVERS))} "
                f"Known: {', '.join(RESOLVERS)}."
            )


def resolve(cfg: DictConfig) -> DictConfig:
    """Return a copy with every `${...}` replaced by its value; raises ConfigError that names the key."""
    cfg = cfg.copy()
    _check_expansion(cfg)
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        if missing := re.search(r"[Mm]issing mandatory value: ([\w.\[\]]+)", str(error)):
            raise ConfigError(f"'{missing[1]}' must be given; it has no default.") from error
        raise ConfigError(f"{getattr(error, 'full_key', None) or 'config'}: {_reason(error)}") from error
    except (ConfigError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"A ${{...}} expression cannot be computed: {_reason(error)}") from error
    return cfg


def _reason(error: Exception) -> str:
    first = str(error).split("\n", 1)[0].strip()
    if missing := re.search(r"Interpolation key '([^']*)' not found", first):
        return f"${{{missing[1]}}} stands for the key '{missing[1]}' of this configuration, and there is none."
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", first)


def references(value: Any, key: str) -> list[str]:
    """Return the full keys that the `${...}` of a value at `key` refer to."""
    if not isinstance(value, str):
        return []
    return [".".join(_absolute(name, tuple(key.split(".")))) for name in _REFERENCE.findall(value)]


def _check_expansion(cfg: DictConfig) -> None:
    """Refuse `${...}` that expand exponentially or form a cycle, before anything is expanded; raises ConfigError."""
    raw = OmegaConf.to_container(cfg, resolve=False)
    sizes: dict[tuple[str, ...], int] = {}

    def size_at(key: tuple[str, ...], chain: tuple[tuple[str, ...], ...]) -> int:
        if key in chain or len(chain) > MAX_CHAIN:
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
    """Return the value at a key, or None, which OmegaConf reports itself."""
    for part in key:
        if isinstance(raw, list) and part.isdigit() and int(part) < len(raw):
            raw = raw[int(part)]
        else:
            raw = raw.get(part) if isinstance(raw, dict) else None
    return raw
