"""A configuration merged from files and overrides, with the origin of each key."""

import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from zero123s.config.interpolation import references

COMMAND_LINE = "command line"
"""The origin of keys that were typed."""


@dataclass
class LoadedConfig:
    """A merged configuration and the origin of its keys."""

    cfg: DictConfig
    origins: dict[str, str]
    """Full key -> the file, profile or command line that set it last."""
    notices: list[str]
    """Sentences to show to the user once."""
    path: Path
    profile: str | None
    is_complete: bool = False
    """Whether a second stage inherits no settings of its first: a file of threestudio's."""

    def explain(self, message: str) -> str:
        """Rewrite a sentence about a key to name the key that the user set, followed by "(set in FILE)".

        A value that is `${another.key}`, or computed from it, is that key's.
        """
        if "(set in " in message:
            return message
        names = re.findall(r"'([^'\s]+)'|^(\w+)(?=[:=])|(\w+(?:\.\w+)+)", message.partition(" Did you mean ")[0])
        found = []
        for quoted in ("".join(groups) for groups in names):
            for key in (quoted, f"system.{quoted}"):
                if origin := self.origins.get(key) or self._origin_of_section(key):
                    found.append((quoted, key, origin))
                    break
        if not found:
            return message
        # Of several keys that do not go together, the user can best change the one that was typed.
        quoted, key, origin = next((entry for entry in found if entry[2] == COMMAND_LINE), found[0])
        source = self._source(key)
        if source != key:
            message, origin = message.replace(quoted, source, 1), self.origins.get(source, origin)
        elif key != quoted:
            message = message.replace(quoted, key, 1)
        return f"{message} (set in {origin})"

    def _origin_of_section(self, key: str) -> str | None:
        """Return the origin of the first entry of a section, which has no origin of its own.

        A word without a dot may be plain English; it is a section only where all of it came from one place.
        """
        origins = [o for k, o in self.origins.items() if k.startswith(f"{key}.")]
        return origins[0] if origins and ("." in key or len(set(origins)) == 1) else None

    def _source(self, key: str) -> str:
        """Return the key that the value of `key` is computed from: the only one, or the one of the command line."""
        for _ in range(len(self.origins)):
            value = OmegaConf.to_container(self.cfg, resolve=False)
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            named = [k for k in references(value, key) if k in self.origins]
            typed = [k for k in named if self.origins.get(k) == COMMAND_LINE]
            if not named or (len(named) > 1 and not typed):
                break
            key = typed[0] if typed else named[0]
        return key
