# SPDX-License-Identifier: MIT
"""The package's own names are the ones in the modules, and importing it imports none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pydiskimg


def test_every_name_is_there() -> None:
    for name in pydiskimg.__all__:
        assert callable(getattr(pydiskimg, name))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pydiskimg.nonsense


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, pydiskimg; print([name for name in sys.modules if name.startswith('pydiskimg.')])"
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "['pydiskimg.startup']\n"
