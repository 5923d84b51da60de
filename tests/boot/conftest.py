# SPDX-License-Identifier: MIT
"""Systems that boot by themselves, made once for all tests and kept in .demo/ for the next run."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.bootable_debian import BootableDebian, Recipe, bootable_debian

WORK = Path(__file__).resolve().parent.parent.parent / ".demo"


def _system(recipe: Recipe, tool: object) -> BootableDebian:
    for name in ("mmdebstrap", "qemu-system-x86_64", "ssh-keyscan"):
        tool(name)  # type: ignore[operator]
    WORK.mkdir(exist_ok=True)
    return bootable_debian(WORK, recipe)
