# SPDX-License-Identifier: MIT
"""The kernel judges a swap area: it is switched on and off again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.disks.block import BlockDisk
from pydiskimg.fs.swap import make_swap
from pydiskimg.units import MIB
from tests.conftest import need
from tests.fixtures.block_devices import block_device, filled_file

pytestmark = pytest.mark.root

SWAP = Path("/proc/swaps")


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_the_kernel_swaps_to_it(sector_size: int, tmp_path: Path, tool: Callable[[str], str]) -> None:
    need(SWAP.exists(), "the kernel has no swap")
    backing = filled_file(tmp_path / "disk", 8 * MIB + 512 * 8)
    with block_device(backing, sector_size=sector_size) as device:
        fd = os.open(device, os.O_RDWR | os.O_EXCL)
        try:
            info = make_swap(BlockDisk(fd, device), label="swap")
        finally:
            os.close(fd)
        done = subprocess.run([tool("swapon"), device], capture_output=True, text=True, check=False)
        need("not permitted" not in done.stderr, f"swapon: {done.stderr}")
        assert done.returncode == 0, done.stderr
        try:
            line = next(line for line in SWAP.read_text().splitlines() if line.startswith(device))
        finally:
            subprocess.run([tool("swapoff"), device], check=True)
    assert int(line.split()[2]) * 1024 == info.pages * 4096
