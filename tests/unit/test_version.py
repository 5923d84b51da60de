# SPDX-License-Identifier: MIT
"""The version is defined in one place, and every build has it."""

from __future__ import annotations

import re
import tomllib

import pydiskimg
from tests.fixtures.checkout import ROOT


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    assert re.findall(r'^__version__ = "(.*)"$', (ROOT / "pydiskimg/__init__.py").read_text(), re.MULTILINE) == [
        pydiskimg.__version__
    ]
    assert pydiskimg.__version__ not in (ROOT / "meson.build").read_text()


def test_the_debian_package_and_the_changelog_have_the_version() -> None:
    package = re.match(r"pydiskimg \(([^)-]+)(-\d+)?\) ", (ROOT / "debian/changelog").read_text())
    assert package
    assert package.group(1) == pydiskimg.__version__
    released = re.findall(r"^## \[(\d.*?)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0][0] == pydiskimg.__version__
