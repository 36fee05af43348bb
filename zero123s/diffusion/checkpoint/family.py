"""Tells which Zero123 model a file holds: its tensors do not, but the fourth pose term and the licence depend on it."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zero123s.diffusion.conditioning import FAMILIES
from zero123s.errors import ConfigError

log = logging.getLogger(__name__)

# As the model cards say (huggingface.co/stabilityai/stable-zero123, huggingface.co/cvlab/zero123-weights).
LICENCES = {
    "stable-zero123": (
        "Stability AI Non-Commercial Research Community License: research only, for CC-BY-NC objects were trained on."
    ),
    "stable-zero123-c": (
        "Stability AI Community License (trained on CC-BY and CC0 objects only): free also commercially up to "
        "1,000,000 US dollars of yearly revenue, see https://stability.ai/license."
    ),
    "zero123": "MIT; the Stable Diffusion weights that it was trained from are under CreativeML Open RAIL-M.",
    "small-zero123": "the licence of this project.",
    "own": "yours; these weights were trained from scratch.",
}
# SHA-256 of the published files: the only way to recognise a renamed file.
PUBLISHED_HASHES = {
    "a28d471b0f450881faf0685335a9ace0c12191c007d285862012747ab4b80f6b": "stable-zero123",
    "394f6adcca928fc83e2e65f571b57af0edd06aa30ffc6bb358596c4f65dd884f": "stable-zero123-c",
    "bc4ea2f8696ed96495a756e178cab659de807bbae2d2df18987cf61c44070696": "zero123",  # zero123-xl.ckpt
}
_announced: set[str] = set()


@dataclass(frozen=True)
class FamilyChoice:
    """A model's name, and the family that decides the fourth pose term."""

    name: str
    family: str


def announce_licence(name: str) -> None:
    """Print the licence of a model's weights, once per process.

    Args:
        name: a key of LICENCES.
    """
    if name not in _announced:
        _announced.add(name)
        print(f"note: licence of {name}: {LICENCES[name]}", file=sys.stderr)


def decide_family(path: Path, metadata: Mapping[str, str], requested: str = "auto", sha256: str = "") -> FamilyChoice:
    """Decide the family: as requested, else by the hash of a published file, else its metadata, else its name.

    When none of these decides, the family is taken to be stable-zero123, with a warning in the log.

    Args:
        path: of the checkpoint; its name is the last resort.
        metadata: of the file; "family" and "name" are read.
        requested: "auto", "stable-zero123" or "zero123".
        sha256: of the file, in hexadecimal.

    Returns:
        Name and family.

    Raises:
        ConfigError: an unknown family.

    Example:
        >>> from pathlib import Path
        >>> from zero123s.diffusion.checkpoint.family import decide_family
        >>> decide_family(Path("zero123-xl.ckpt"), metadata={})
        FamilyChoice(name='zero123', family='zero123')
    """
    if requested not in ("auto", *FAMILIES):
        raise ConfigError(f"Unknown family '{requested}'. Known: auto, {', '.join(FAMILIES)}.")
    stated, origin = metadata.get("family"), metadata.get("name")
    # A fine-tuned model keeps the licence of the model it was tuned from, whatever its file is called.
    name = PUBLISHED_HASHES.get(sha256) or (origin if origin in LICENCES else None) or _name_of(path)
    if requested != "auto":
        family = requested
    elif sha256 in PUBLISHED_HASHES:
        family = _family_of(PUBLISHED_HASHES[sha256])
    elif stated in FAMILIES:
        family = stated
    elif name is not None:
        family = _family_of(name)
    else:
        log.warning(
            "Cannot determine the family of %s: assuming stable-zero123; set `family: zero123` otherwise.", path
        )
        family = "stable-zero123"
    if name is None or (name.startswith("stable") and family == "zero123") or (name == "zero123" and family != name):
        name = family
    return FamilyChoice(name, family)


def _family_of(name: str) -> str:
    return "zero123" if name == "zero123" else "stable-zero123"


def _name_of(path: Path) -> str | None:
    """Guess the model from its file or folder name, or from the name of the hub's cache folder around it."""
    cached = [part for part in path.parts if part.startswith("models--")]
    name = " ".join((*cached, path.name)).lower().replace("_", "-")
    if "small-zero123" in name:
        return "small-zero123"
    if "stable-zero123" in name or "stablezero123" in name:
        return "stable-zero123-c" if "zero123-c" in name or "zero123c" in name else "stable-zero123"
    if "zero123" in name or "105000" in name or "165000" in name:
        return "zero123"
    return None
