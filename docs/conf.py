# SPDX-License-Identifier: MIT
"""The site: `make docs` (docs/adr/0150-the-site-is-made-by-sphinx.md)."""

from __future__ import annotations

import re

import pydiskimg

project = "pydiskimg"
version = release = pydiskimg.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]

# The source is the checkout, so that a link reads the same on GitHub and here.
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**.md", "benchmarks/*.md"]
root_doc = "docs/index"

html_theme = "furo"
html_title = "pydiskimg"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]

myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
toc_object_entries = False

_LINK = re.compile(r"^- \[[^\]]*\]\(([^)#:]+\.md)\)", re.MULTILINE)
_CAPTION = re.compile(r"^## (.+)$", re.MULTILINE)


def _toctree(pages: list[str], caption: str = "") -> str:
    title = f":caption: {caption}\n" if caption else ""
    return "\n".join(["", "```{toctree}", f"{title}:hidden:", "", *pages, "```", ""])


def add_contents(_app: object, page: str, source: list[str]) -> None:
    """Take the site's contents from the lists of links in two pages, which stay plain lists on GitHub."""
    if page == "docs/adr/README":
        source[0] += _toctree(_LINK.findall(source[0]))
    elif page == root_doc:
        for section in re.split(r"(?m)^(?=## )", source[0])[1:]:
            caption = _CAPTION.match(section)
            source[0] += _toctree(_LINK.findall(section), caption[1] if caption else "")


def setup(app: object) -> None:
    """Connect the function above; Sphinx calls this."""
    app.connect("source-read", add_contents)  # type: ignore[attr-defined]
