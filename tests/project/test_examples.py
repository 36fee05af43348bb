"""Docstrings of ops/, diffusion/, images, meshes and the top level document arguments, results and errors; examples run."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

from zero123s.ops import backends

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "zero123s"
BACKENDS = {"numba", "triton", "nerfacc", "tcnn", "gsplat", "nvdiffrast"}
"""Files of one backend of an operation: its public function and the plain-torch reference have the full docstring."""
DOCUMENTED = ("images", "mesh", "preprocess", "exporter", "evaluate")
FILES = [
    *sorted(p for p in (PACKAGE / "ops").rglob("*.py") if p.stem not in BACKENDS),
    *sorted((PACKAGE / "diffusion").rglob("*.py")),
    *sorted(path for path in PACKAGE.glob("*.py") if path.stem != "losses"),
    *(path for folder in DOCUMENTED for path in sorted((PACKAGE / folder).glob("*.py"))),
]
LOSSES = PACKAGE / "losses.py"
MIN_EXAMPLES = 140


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


WITH_EXAMPLES = [module_name(path) for path in FILES if ">>> " in path.read_text(encoding="utf-8")]


def public_functions(tree: ast.Module):
    """Yield the name and node of public functions, and of the methods of public classes, without properties."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((f"{node.name}.{f.name}", f) for f in node.body if isinstance(f, ast.FunctionDef))


def is_documented_in_full(name: str, node: ast.FunctionDef) -> bool:
    is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
    return not (is_property or any(part.startswith("_") for part in name.split(".")))


def is_term_or_method(name: str, node: ast.FunctionDef) -> bool:
    """Loss terms all map a `View` to a scalar; their docstring is the formula, shown as the documentation of the weight."""
    return "." in name or any(ast.unparse(decorator).startswith("term(") for decorator in node.decorator_list)


def sections(docstring: str) -> dict[str, list[str]]:
    """Return the lines of each section of a Google-style docstring, the text before them under ''."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in docstring.splitlines():
        if line in ("Args:", "Returns:", "Yields:", "Raises:", "Example:"):
            current = line[:-1]
        found.setdefault(current, []).append(line)
    return found


def entries(lines: list[str]) -> set[str]:
    """Return the names that a section explains: `name: text`, indented by four."""
    heads = [line.partition(":")[0].strip() for line in lines[1:] if line.startswith("    ") and line[4:5] != " "]
    return {name.strip() for head in heads for name in head.split(",")}


def parameters(node: ast.FunctionDef) -> set[str]:
    spec = node.args
    every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
    return {a.arg for a in every if a is not None} - {"self", "cls"}


def errors(node: ast.FunctionDef) -> set[str]:
    """Return the errors that a function raises itself, and those of choosing a backend by name."""
    calls = [n.exc for n in ast.walk(node) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)]
    raised = {ast.unparse(call.func) for call in calls}
    return raised | ({"ConfigError", "MissingDependencyError"} if "backend" in parameters(node) else set())


def undocumented_functions(path: Path) -> list[str]:
    """Return what the docstrings of a file's public functions lack."""
    lacks = []
    for name, node in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        if not is_documented_in_full(name, node) or (path == LOSSES and is_term_or_method(name, node)):
            continue
        found = sections(ast.get_docstring(node) or "")
        if missing := parameters(node) ^ entries(found.get("Args", [""])):
            lacks.append(f"{path.name}: {name}: Args and signature differ in {sorted(missing)}")
        returns = ast.unparse(node.returns) if node.returns else "None"
        if returns != "None" and not found.keys() & {"Returns", "Yields"}:
            lacks.append(f"{path.name}: {name}: no Returns")
        if unexplained := errors(node) - entries(found.get("Raises", [""])):
            lacks.append(f"{path.name}: {name}: Raises lacks {sorted(unexplained)}")
    return lacks


def test_public_functions_document_arguments_results_and_errors():
    lacks = [sentence for path in (*FILES, LOSSES) for sentence in undocumented_functions(path)]
    assert not lacks, "\n".join(lacks)


def undocumented_classes(path: Path) -> list[str]:
    """Return which arguments of a file's public classes no docstring explains."""
    lacks = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        for method in (f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"):
            documented = [entries(sections(ast.get_docstring(n) or "").get("Args", [""])) for n in (node, method)]
            if missing := parameters(method) - set.union(*documented):
                lacks.append(f"{path.name}: {node.name}: Args lacks {sorted(missing)}")
    return lacks


def test_public_classes_document_how_they_are_made():
    lacks = [sentence for path in FILES for sentence in undocumented_classes(path)]
    assert not lacks, "\n".join(lacks)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_docstrings_run(module, monkeypatch):
    # The plain-torch references, which need no compiling; other tests compare the backends with them.
    monkeypatch.setattr(backends, "_numba_works", lambda: False)
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0, f"python -m doctest shows what differs in {module}"


def test_there_are_at_least_forty_examples():
    docstrings = [
        ast.get_docstring(node) or ""
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    assert sum("Example:" in docstring.splitlines() for docstring in docstrings) >= MIN_EXAMPLES
