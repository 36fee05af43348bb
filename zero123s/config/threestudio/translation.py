"""Moves, drops and refuses keys of a configuration, with a notice for each."""

import re
from typing import Any

from zero123s.config.threestudio import keys
from zero123s.errors import ConfigError

_MISSING = object()


class Translation:
    """A configuration during its translation.

    Args:
        content: nested plain values, changed in place.
    """

    def __init__(self, content: dict[Any, Any]) -> None:
        self.content = content
        self.notices: list[str] = []
        self._moved: dict[str, str] = {}
        self._inlined: dict[str, Any] = {}

    def has(self, key: str) -> bool:
        """Tell whether a key is given."""
        return keys.has(self.content, key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key."""
        value: Any = self.content
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    def put(self, key: str, value: Any) -> None:
        """Set a key."""
        keys.put(self.content, key, value)

    def default(self, key: str, value: Any) -> None:
        """Set a key that is not given."""
        if not self.has(key):
            self.put(key, value)

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Remove a key and return its value; references to it get the value."""
        if not self.has(key):
            assert default is not _MISSING, key
            return default
        self._inlined[key] = value = keys.remove(self.content, key)
        return value

    def move(self, old: str, new: str) -> None:
        """Rename a key, with a notice; a value under the new name takes precedence."""
        if not self.has(old):
            return
        value = keys.remove(self.content, old)
        self._moved[old] = new
        self.default(new, value)
        self.notices.append(keys.renamed_notice(old, new))

    def moves_to(self, old: str, new: str) -> None:
        """Let references to a key that was moved elsewhere follow it."""
        self._inlined.pop(old, None)
        self._moved[old] = new

    def rename_type(self, key: str, name: str) -> None:
        """Set a slot's type, with a notice if it had another name."""
        if self.get(key) not in (None, name):
            self.notices.append(keys.renamed_notice(f"{key}: {self.get(key)}", name))
        self.put(key, name)

    def drop(self, key: str, why: str) -> None:
        """Remove a key, with a notice."""
        if self.has(key):
            self.pop(key)
            self.notices.append(keys.dropped_notice(key, why))

    def drop_if(self, key: str, value: Any, why: str) -> None:
        """Remove a key with a given value; any other value stays, for the parser to report."""
        if self.get(key) == value:
            self.drop(key, why)

    def refuse_unless(self, key: str, allowed: tuple[Any, ...], why: str) -> None:
        """Remove a key whose value is the behaviour here anyway; raises ConfigError for any other."""
        if not self.has(key):
            return
        value = self.pop(key)
        if value not in allowed:
            raise ConfigError(f"{key}={value} cannot be followed: {why}.")

    def follow_references(self) -> None:
        """Update every `${...}`: a moved key by its new name, a dropped key by its value."""
        for key in tuple(self.content):
            self.content[key] = self._followed(self.content[key])

    def _followed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: self._followed(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._followed(v) for v in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        if (whole := re.fullmatch(r"\$\{([\w.]+)\}", value)) and whole[1] in self._inlined:
            return self._followed(self._inlined[whole[1]])
        return re.sub(r"\$\{([\w.]+)\}", self._new_reference, value)

    def _new_reference(self, found: re.Match[str]) -> str:
        key = found[1]
        if key in self._inlined:
            return str(self._inlined[key])
        for _ in self._moved:  # a key may move twice
            key = self._moved.get(key, key)
        return f"${{{key}}}"
