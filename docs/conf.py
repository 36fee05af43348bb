"""Sphinx settings of the documentation site: `sphinx-build -W --keep-going docs site` (extra `docs`)."""

import re
from pathlib import Path

import zero123s

HERE = Path(__file__).parent

project = "zero123s"
copyright = "the zero123s authors"
release = zero123s.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["**.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"zero123s {release}"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_rtype = False

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)\)")


def _unlink_repository_files(app: object, name: str, source: list[str]) -> None:
    """Keep the text of links to files outside docs/, which a checkout has and the site does not; check they exist."""

    def text(match: re.Match[str]) -> str:
        if not (HERE.parent / match[2]).exists():
            raise FileNotFoundError(f"docs/{name}.md links to '../{match[2]}', which does not exist.")
        return match[1]

    source[0] = OUTSIDE.sub(text, source[0])


def setup(app) -> None:
    """Register the rewriting of links."""
    app.connect("source-read", _unlink_repository_files)
