"""`zero123s migrate`: the changes that an extension written for threestudio needs, as a diff."""

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zero123s.errors import ConfigError
from zero123s.runtime.files import user_path, write_text


class Slot(NamedTuple):
    """The interface of a slot's class in this project."""

    registry: str
    base: str
    module: str
    arguments: str
    """Of `__init__`, which threestudio calls `configure`."""
    method: str
    signature: str


SLOTS = {
    "geometry": Slot("GEOMETRIES", "BaseGeometry", "geometry.base", "cfg", "forward", "x, needs, generator=None"),
    "material": Slot(
        *("MATERIALS", "BaseMaterial", "material.base", "cfg, n_features", "forward"),
        "features, x, dirs, normal, light_positions, shading",
    ),
    "background": Slot("BACKGROUNDS", "BaseBackground", "background.base", "cfg", "forward", "dirs, generator=None"),
    "renderer": Slot(
        *("RENDERERS", "BaseRenderer", "renderer.base", "cfg, bound", "forward"),
        "rays, field, background, needs=frozenset(), generator=None",
    ),
    "guidance": Slot(
        *("GUIDANCES", "BaseGuidance", "guidance.base", 'cfg, reference, device="cpu"', "__call__"),
        "comp_rgb, cameras, step, generator",
    ),
    "exporter": Slot(
        *("EXPORTERS", "BaseExporter", "exporter.base", "cfg", "__call__"),
        'field, out_dir, *, threshold="auto", reference=None, extras=None, progress=None',
    ),
    "system": Slot("SYSTEMS", "BaseSystem", "system.base", "cfg, data, seed=0", "training_step", "batch, batch_idx"),
    "datamodule": Slot("DATA", "BaseData", "data.base", "cfg, seed=0", "batch_at", "step, micro_step=0, rank=0"),
}
OF_BASE = {
    **dict.fromkeys(("BaseGeometry", "BaseImplicitGeometry", "BaseExplicitGeometry", "ImplicitVolume"), "geometry"),
    **dict.fromkeys(("Renderer", "VolumeRenderer", "Rasterizer", "NeRFVolumeRenderer"), "renderer"),
    **dict.fromkeys(("BaseSystem", "BaseLift3DSystem"), "system"),
    "BaseMaterial": "material",
    "BaseBackground": "background",
    "Exporter": "exporter",
}
"""threestudio's base classes and their slots; without one, the suffix of the registered name decides."""
ADVICE = {
    r"threestudio\.find\(": "slots are built by the system: read self.geometry, self.guidance, ... instead of finding them",
    r"threestudio\.(info|warn|debug)\(": "use logging.getLogger(__name__)",
    r"parse_structured\(": "settings arrive parsed, as the class's Config",
    r"\bupdate_step\(": "schedules move in on_step(self, step)",
    r"\bget_device\(": "modules are moved for you; take the device of an input",
    r"prompt_utils|prompt_processor": "a prompt belongs to the guidance: settings prompt, negative_prompt, perp_neg",
    r"\bC\(": "read a schedule by zero123s.config.schedule.Schedule(value, key)(step)",
}
"""Comments for patterns that cannot be rewritten."""
_REGISTER = re.compile(r"^(\s*)@threestudio\.register\(\s*([\"'])([^\"']+)\2\s*\)")
_CLASS = re.compile(r"^(\s*)class (\w+)\(([\w.]+)[^)]*\):")


class Migration(NamedTuple):
    """The rewritten file, and what remains to be done by hand."""

    text: str
    advice: list[str]


def main(argv: Sequence[str]) -> int:
    """Print the diff of every file; change them only with --write."""
    parser = argparse.ArgumentParser(prog="zero123s migrate", description=__doc__)
    parser.add_argument("files", nargs="+", type=user_path, metavar="FILE", help="a Python file, or a folder of them")
    parser.add_argument("--write", action="store_true", help="change the files; the default only prints")
    args = parser.parse_args(argv)
    for path in _python_files(args.files):
        try:
            old = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as text ({error}).") from error
        new, advice = migrate(old)
        print(
            "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(path), f"{path} (here)")),
            end="",
        )
        print("\n".join(f"{path}: {line}" for line in advice))
        if args.write and new != old:
            write_text(path, new)
    return 0


def _python_files(paths: Sequence[Path]) -> list[Path]:
    for path in paths:
        if not path.exists():
            raise ConfigError(f"'{path}' does not exist.")
    return [f for path in paths for f in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]


def migrate(text: str) -> Migration:
    """Rewrite registration, Config, configure and the main method's signature of every registered class."""
    lines, used, slot = [], [], None
    advice: list[str] = []
    old_lines = text.splitlines()
    for number, line in enumerate(old_lines):
        if registered := _REGISTER.match(line):
            slot = _slot_of(registered[3], old_lines[number + 1 :])
            if slot is None:
                advice.append(f"line {number + 1}: '{registered[3]}' matches no slot by its name or base class.")
                lines.append(line)
                continue
            used.append(slot)
            lines.append(f'{registered[1]}@{slot.registry}.register("{registered[3]}")')
            continue
        lines += _rewritten(line, slot) if slot else [line]
        advice += [f"line {number + 1}: {what}." for pattern, what in ADVICE.items() if re.search(pattern, line)]
    imports = [f"from zero123s.{s.module} import {s.registry}, {s.base}" for s in dict.fromkeys(used)]
    return Migration("\n".join(_with_imports(lines, imports)) + "\n", advice)


def _slot_of(name: str, following: list[str]) -> Slot | None:
    declared = next((match for line in following[:3] if (match := _CLASS.match(line))), None)
    kind = OF_BASE.get(declared[3].rpartition(".")[2]) if declared else None
    kind = kind or next((k for k in SLOTS if name.endswith(k)), None)
    return SLOTS[kind] if kind else None


def _rewritten(line: str, slot: Slot) -> list[str]:
    """Return the lines that replace one line inside a registered class."""
    given = re.sub(r"=[^,]+", "", slot.arguments)
    if (match := _CLASS.match(line)) and match[2] == "Config":
        return [f"{match[1]}class Config({slot.base}.Config):"]
    if match := _CLASS.match(line):
        return [f"{match[1]}class {match[2]}({slot.base}):"]
    if match := re.match(r"^(\s*)def configure\(self.*", line):
        return [f"{match[1]}def __init__(self, {slot.arguments}):", f"{match[1]}    super().__init__({given})"]
    if re.match(r"^\s*super\(\)\.configure\(.*\)\s*$", line):
        return []
    if match := re.match(rf"^(\s*)def {slot.method}\(self\b.*\).*:\s*$", line):
        return [f"{match[1]}def {slot.method}(self, {slot.signature}):"]
    return [line]


def _with_imports(lines: list[str], imports: list[str]) -> list[str]:
    """Insert the new imports in place of threestudio's first one, and remove threestudio's."""
    imported = [i for i, line in enumerate(lines) if re.match(r"^\s*(import threestudio\b|from threestudio\b)", line)]
    if not imported:
        return [*imports, *lines] if imports else lines
    kept = [[line] for line in lines]
    for i in imported:
        kept[i] = []
    kept[imported[0]] = imports
    return [line for group in kept for line in group]
