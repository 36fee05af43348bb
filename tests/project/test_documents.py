"""The documents: links lead somewhere, files they name exist, the README stays a landing page and its code runs."""

import re
from pathlib import Path

import pytest
import torch

from zero123s.geometry import GEOMETRIES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


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
