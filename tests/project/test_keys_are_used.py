"""No key of a configuration is accepted and ignored: the code reads every field of every settings class."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "zero123s"
PASSED_ON = {"TrainerConfig", "ChartOptions", "PackOptions"}
"""Settings that are handed to a library as a whole: Lightning's Trainer, xatlas."""
READ_OTHERWISE = {
    "description": "free text, kept in config.yaml",
    "trial_dir": "config.yaml holds the run folder; config/load.py takes it out of the mapping",
    "warmup_steps": "threestudio's recipes refer to it as ${system.scheduler.warmup_steps}",
    **dict.fromkeys(("front", "left", "back", "right"), "read by the names in data/named_views.AZIMUTHS_DEG"),
}


def is_settings(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Options")) and node.name not in PASSED_ON


def fields(node: ast.ClassDef):
    return [f.target.id for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]


def read_names(trees) -> tuple[set[str], set[str]]:
    """Return the attributes and strings that code reads, and the beginnings of names that it composes."""
    read, composed = set(), set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            read.add(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "replace"):
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant):
                    read.add(argument.value)
                elif isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
                    composed.add(argument.values[0].value)
    return read, composed


def test_every_key_is_read():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    read, composed = read_names(trees.values())
    known, beginnings = read | READ_OTHERWISE.keys(), tuple(composed)
    settings = [(path, node) for path, tree in trees.items() for node in ast.walk(tree) if is_settings(node)]
    assert len(settings) > 50
    unread = [
        f"{path.relative_to(PACKAGE)}, line {node.lineno}: {name}"
        for path, node in settings
        for name in fields(node)
        if name not in known and not name.startswith(beginnings)
    ]
    assert not unread, f"accepted without effect: {unread}"


def test_an_ignored_key_is_found():
    read, composed = read_names([ast.parse("cfg.rate; getattr(cfg, f'prompt_{view}')")])
    assert "rate" in read
    assert "unused" not in read
    assert composed == {"prompt_"}
