"""`zero123s new KIND NAME`: a working extension to start from, with a configuration and a test that pass."""

import argparse
import keyword
import os
import re
from collections.abc import Sequence
from pathlib import Path

from zero123s.commands.new_templates import CODE, CONFIG, KINDS, SMALL, TEST
from zero123s.errors import ConfigError, OutputError
from zero123s.runtime.files import write_text

SOURCE = Path(__file__).resolve().parents[2]


def scaffold(kind: str, name: str, folder: Path) -> list[Path]:
    """Write NAME.py, NAME.yaml and test_NAME.py into a folder; returns the files.

    Args:
        kind: one of KINDS.
        name: what YAML will call it, for example "my-sdf".
        folder: usually `custom`, whose files every run imports.

    Raises:
        ConfigError: a name that cannot be a module's.
        OutputError: a file is there already or cannot be written.
    """
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or keyword.iskeyword(module):
        raise ConfigError(f"'{name}' is no name for a {kind}; use small letters, digits and dashes, such as my-{kind}.")
    words = {
        "name": name,
        "module": module,
        "cls": "".join(part.capitalize() for part in name.split("-")),
        "base": os.path.relpath(SOURCE / "configs" / "multi-view.yaml", folder.resolve()),
        "views": str(SOURCE / "load" / "images" / "multi_view_sample" / "transforms.json"),
        "small": SMALL[kind],
        "image": str(SOURCE / "load" / "images" / "hamburger_rgba.png"),
    }
    texts = {
        folder / f"{module}.py": CODE[kind],
        folder / f"{module}.yaml": CONFIG[kind],
        folder / f"test_{module}.py": TEST,
    }
    taken = [path for path in texts if path.exists()]
    if taken:
        raise OutputError(f"'{taken[0]}' is there already; choose another name or remove it.")
    for path, text in texts.items():
        write_text(path, re.sub(r"@(\w+)@", lambda m: words[m[1]], text.lstrip("\n")))
    return list(texts)


def main(argv: Sequence[str]) -> int:
    """Run `zero123s new`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="zero123s new", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("name", help="what YAML will call it, for example my-sdf")
    parser.add_argument("--to", type=Path, default=Path("custom"), help="folder (default: custom)")
    args = parser.parse_args(argv)
    code, config, test = scaffold(args.kind, args.name, args.to)
    print(f"wrote {code}, {config} and {test}; try them:")
    print(f"  python launch.py --config {config} --train")
    print(f"  pytest {test}")
    return 0
