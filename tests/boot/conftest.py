# SPDX-License-Identifier: MIT
"""Bootable systems, made when a test needs them and kept in .demo/ for the next run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.bootable_debian import BootableDebian, Recipe, bootable_debian

Systems = Callable[[Recipe], BootableDebian]
WORK = Path(__file__).resolve().parent.parent.parent / ".demo"


@pytest.fixture
def systems(tool: Callable[[str], str]) -> Systems:
    """Return a function that makes the system of a recipe, or finds it made."""

    def system(recipe: Recipe) -> BootableDebian:
        for name in ("mmdebstrap", "pigz", "qemu-img", "qemu-system-x86_64", "setpriv", "ssh-keyscan"):
            tool(name)
        WORK.mkdir(exist_ok=True)
        return bootable_debian(WORK, recipe)

    return system
