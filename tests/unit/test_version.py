# SPDX-License-Identifier: MIT
"""The version that the package tells is the one that it is built with."""

from __future__ import annotations

import tomllib

from pydiskimg import __version__
from tests.fixtures.checkout import ROOT


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert f"version: '{__version__}'" in (ROOT / "meson.build").read_text()
