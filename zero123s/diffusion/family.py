"""Which Zero123 a file is: no tensor tells, but the fourth pose term and the licence depend on it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zero123s.diffusion.conditioning import FAMILIES
from zero123s.errors import ConfigError

log = logging.getLogger(__name__)

LICENCES = {
    "stable-zero123": "Stability AI non-commercial research community licence (trained on CC-BY-NC objects too).",
    "stable-zero123-c": "Stability AI community licence (trained on CC-BY and CC0 objects only).",
    "zero123": "MIT licence of cvlab-columbia/zero123; the Stable Diffusion weights it starts from: CreativeML Open RAIL-M.",
    "small-zero123": "the licence of this project.",
}


@dataclass(frozen=True)
class FamilyChoice:
    """A model's name, and the family that decides its arithmetic."""

    name: str
    family: str


def decide_family(path: Path, metadata: Mapping[str, str], asked: str = "auto") -> FamilyChoice:
    """Return the family: as asked, else the file's metadata, else its name, else a guess that is logged as a warning.

    Raises ConfigError for an unknown family.
    """
    if asked not in ("auto", *FAMILIES):
        raise ConfigError(f"Unknown family '{asked}'. Known: auto, {', '.join(FAMILIES)}.")
    name = _name_of(path)
    stated = metadata.get("family")
    if asked != "auto":
        family = asked
    elif stated in FAMILIES:
        family = stated
    elif name is not None:
        family = "zero123" if name == "zero123" else "stable-zero123"
    else:
        log.warning("Nothing tells which family %s is: taking stable-zero123; say `family: zero123` if not.", path)
        family = "stable-zero123"
    if name is None or (name.startswith("stable") and family == "zero123") or (name == "zero123" and family != name):
        name = family
    return FamilyChoice(name, family)


def _name_of(path: Path) -> str | None:
    """Guess the model from the words of its file or folder name."""
    words = path.name.lower().replace("_", "-")
    if "small-zero123" in words:
        return "small-zero123"
    if "stable-zero123" in words or "stablezero123" in words:
        return "stable-zero123-c" if "zero123-c" in words or "zero123c" in words else "stable-zero123"
    if "zero123" in words or "105000" in words or "165000" in words:
        return "zero123"
    return None
