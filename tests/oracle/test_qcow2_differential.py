# SPDX-License-Identifier: MIT
"""Random images with all features mixed: we read what QEMU reads; what we write, it reads, checks and changes.

For thousands of them: python -m tests.fuzz.differential --images 3000
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.differential import compare_image

pytestmark = pytest.mark.oracle

IMAGES = 60
GROUP = 6


@pytest.mark.parametrize("first", range(0, IMAGES, GROUP))
def test_random_images_are_read_as_qemu_reads_them(first: int, tool: Callable[[str], str], tmp_path: Path) -> None:
    tool("qemu-img")
    tool("qemu-io")
    for seed in range(first, first + GROUP):
        directory = tmp_path / str(seed)
        directory.mkdir()
        compare_image(seed, directory)
