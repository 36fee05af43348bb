"""Layers and packages, the absence of import cycles, unique file names and size budgets, read from the source."""

import ast
import functools
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "zero123s"
FILES = sorted(PACKAGE.rglob("*.py"))
SLOTS = ("data", "geometry", "material", "background", "renderer", "guidance", "exporter")
LAYERS = {
    0: ("errors", "registry", "structures", "randomness", "runtime", "config"),
    1: ("ops", "mesh", "images"),
    2: ("diffusion", "preprocess", "scenes"),
    3: (*SLOTS, "losses"),
    4: ("system",),
    5: ("callbacks", "run", "evaluate"),
    6: ("api", "cluster", "web"),
    7: ("commands", "__main__"),
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
ROLES = {
    "__init__",
    "agreement",
    "base",
    "reference",
    "numba",
    "triton",
    "cuda",
    "nerfacc",
    "gsplat",
    "nvdiffrast",
    "tcnn",
}
"""File names that mean the same in every folder: a slot's base class, the backends of an operation."""
NAMED_BY_YAML_OR_COMMAND = {*SLOTS, "commands"}
"""Folders whose file names are the words that users write; they may repeat a word of another folder."""
MAX_TOP_MODULES = 8


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p for p in FILES}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zero123s"):
            names = {f"{node.module}.{a.name}" for a in node.names}
            found |= {n if n in MODULES else node.module for n in names}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("zero123s")}
    return found


def wrong_imports(path: Path) -> list[str]:
    """Return what a file imports from a higher layer or from another slot."""
    name = module_name(path)
    parts = name.split(".")
    if len(parts) == 1:
        return []
    found = []
    for target in imports(path):
        folder = target.split(".")[1] if "." in target else ""
        if not folder or folder == parts[1]:
            continue
        if LAYER[folder] > LAYER[parts[1]]:
            found.append(f"{name} imports {target} from a higher layer")
        if folder in SLOTS and parts[1] in SLOTS:
            found.append(f"{name} imports another slot: {target}")
    return found


def test_every_file_imports_only_lower_layers():
    wrong = [sentence for path in FILES for sentence in wrong_imports(path)]
    assert not wrong, "\n".join(wrong)


def room_of(module: str) -> str:
    """Return the folder or top module that a module lies in."""
    return module.split(".")[1] if "." in module else "zero123s"


@pytest.mark.parametrize("level", ["modules", "packages"])
def test_no_import_cycles(level):
    graph: dict[str, set[str]] = defaultdict(set)
    for name, path in MODULES.items():
        if name == "zero123s":  # the public door names what lies above it, lazily
            continue
        if level == "modules":
            graph[name] = imports(path) & set(MODULES) - {"zero123s"}
        else:
            graph[room_of(name)] |= {room_of(target) for target in imports(path)} - {room_of(name), "zero123s"}
    done: set[str] = set()
    print(f"{len(graph)} {level}, {sum(map(len, graph.values()))} arrows, {len(LAYERS)} layers")

    def visit(name: str, stack: tuple[str, ...]) -> None:
        assert name not in stack, f"import cycle: {' -> '.join((*stack, name))}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*stack, name))
            done.add(name)

    for name in list(graph):
        visit(name, ())


def test_few_modules_lie_outside_the_packages():
    top = sorted(path.stem for path in PACKAGE.glob("*.py"))
    assert len(top) <= MAX_TOP_MODULES, top


def test_no_two_files_share_a_name():
    folders: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        parts = path.relative_to(PACKAGE).parts
        if path.stem not in ROLES and parts[0] not in NAMED_BY_YAML_OR_COMMAND:
            folders[path.stem].append("/".join(parts[:-1]))
    assert not {name: where for name, where in folders.items() if len(where) > 1}


def test_files_and_functions_are_short():
    long = [f"{path.name} is longer than 400 lines" for path in FILES if path.read_text("utf-8").count("\n") > 400]
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(node) else 0
                length = (node.end_lineno or 0) - node.lineno - docstring
                if length > 60:
                    long.append(f"{path.name}:{node.lineno} {node.name} has {length} lines without its docstring")
    assert not long, "\n".join(long)


def test_public_functions_are_annotated_and_documented():
    found = []
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                found.append(f"{path.name}: class {node.name} has no docstring")
        for node in parsed(path).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    found.append(f"{path.name}: {node.name} has no docstring")
                if node.returns is None:
                    found.append(f"{path.name}: {node.name} lacks a return annotation")
    assert not found, "\n".join(found)
