# SPDX-License-Identifier: MIT
"""The documentation as a whole: the site builds without a warning, README's output is today's, every page is linked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import pydiskimg
from tests.fixtures.checkout import ROOT
from tests.fixtures.readme_screen import made_screen

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", "docs", ".", str(site)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return site


def test_the_site_has_every_page_and_every_public_name(site: Path) -> None:
    pages = {path.relative_to(ROOT).with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not (site / page).is_file()} == set()
    reference = unescape((site / "docs/reference.html").read_text())
    names: list[str] = getattr(pydiskimg, "__all__")  # noqa: B009 - hidden from type checkers
    assert [name for name in names if f'id="pydiskimg.{name}"' not in reference] == []
    assert "docs/index.html" in (site / "index.html").read_text()


def test_the_output_in_readme_is_todays() -> None:
    readme = (ROOT / "README.md").read_text()
    assert made_screen(readme) == readme, "run: make readme"
    assert len(readme.splitlines()) <= 120


def test_readme_and_the_index_link_to_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    for name, prefix in (("README.md", "docs/"), ("docs/index.md", "")):
        links = re.findall(rf"\]\({prefix}([\w-]+\.md)", (ROOT / name).read_text())
        assert pages - set(links) == set(), name
