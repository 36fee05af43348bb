"""The documents: links lead somewhere, files they name exist, the README stays a landing page and its code runs."""

import re
from pathlib import Path

import pytest
import torch

from zero123s.commands.main import COMMANDS
from zero123s.geometry import GEOMETRIES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


PAGES = [path for path in DOCUMENTS if path.name not in ("configuration.md", "from-threestudio.md")]
"""Without the generated page, and the page of another project's keys."""
SECTIONS = ("data", "system", "trainer", "checkpoint", "health", "viewer")


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub and MyST give a document's headings."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_readme_is_a_landing_page():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any("launch.py --config configs/stable-zero123.yaml --train" in line for line in lines[:20])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_existing_files(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name) if name else document
        assert path.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_configs_scripts_and_tests_exist(document):
    named = re.findall(
        r"(?<![\w/.-])((?:configs|benchmarks|tests|load)/[\w./-]+\.(?:yaml|py|sh))\b",
        document.read_text(encoding="utf-8"),
    )
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_and_folders_exist(document):
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`((?:configs|benchmarks|tests|load|zero123s|docs)/[\w/.-]+)`", text)
    # Some pages name files of the package without its folder: `guidance/vsd.py`.
    named += re.findall(r"`((?:[a-z_]+/)+\w+\.py)`", text)
    missing = [path for path in named if not ((ROOT / path).exists() or (ROOT / "zero123s" / path).exists())]
    # Not there: what the reader makes (my_...), downloads (.ckpt), or has in threestudio.
    own = re.compile(r".*/my_\w+\.py|load/zero123/.*\.ckpt|configs/debugging")
    assert not [path for path in missing if not own.fullmatch(path)], document.name


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_named_keys_exist(document):
    table = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", table, re.M))
    sections = {key.rsplit(".", n)[0] for key in known for n in range(1, key.count(".") + 1)}
    overrides = re.findall(
        rf"(?<![\w/.-])((?:{'|'.join(SECTIONS)})(?:\.[a-z0-9_]+)+)(?=[=\s`:])", document.read_text("utf-8")
    )
    known |= sections | {"system.loss.lambda_name"}  # stands for a loss term of the reader's own
    wrong = {word for word in overrides if word not in known and not word.endswith((".py", ".yaml"))}
    assert not wrong, document.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_commands_exist(document):
    named = re.findall(r"(?:^    |`)zero123s ([a-z][\w-]*)", document.read_text(encoding="utf-8"), re.M)
    assert not set(named) - set(COMMANDS), document.name


def test_every_page_is_linked_from_the_index():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w-]+)\.md\)", text))
    listed = {
        line.strip() for block in re.findall(r"```\{toctree\}(.*?)```", text, re.S) for line in block.splitlines()
    }
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages == linked == listed & pages


def test_geometry_of_the_readme_is_a_ball(monkeypatch):
    monkeypatch.setattr(GEOMETRIES, "_classes", dict(GEOMETRIES._classes))  # the contract tests list what is registered
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code is not None
    names: dict = {}
    exec(code[1], names)
    ball = names["Ball"](names["Ball"].Config())
    sigma = ball(torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0]]), needs=frozenset({"features"})).sigma
    assert sigma[0] > 100
    assert sigma[1] < 1
