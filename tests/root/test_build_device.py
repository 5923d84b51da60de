# SPDX-License-Identifier: MIT
"""build onto a block device: all of it, over what it held, its partition table last, and never one that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.block_devices import MIB, block_device, filled_file, has_no_beginning
from tests.fixtures.checkout import ROOT
from tests.fixtures.judges import inside, partitions
from tests.fixtures.small_system import system_tarball, system_tree

pytestmark = pytest.mark.root
SIZE = 64 * MIB


def build(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pydiskimg", "build", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    return system_tarball(tmp_path / "system.tar.gz", system_tree(tmp_path / "tree"))


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_device_is_built_on_as_a_whole(tmp_path: Path, tarball: Path, sector_size: int) -> None:
    file = filled_file(tmp_path / "disk", SIZE)
    with block_device(file, sector_size=sector_size) as device:
        done = build(tarball, device, "--table", "gpt", "--swap", "1M")
        assert done.returncode == 0, done.stderr
        without = (
            "no boot loader is written, and the disk cannot boot by itself: a BIOS boots only from sectors of 512 bytes"
        )
        assert (without in done.stderr) == (sector_size == 4096)
        *_, root = partitions(device)
        with inside(device, root, tmp_path) as point:
            assert (point / "etc/hostname").read_bytes() == b"old\n"
            assert (point / "vmlinuz").read_bytes() == b"a kernel"
        held = os.open(device, os.O_RDWR | os.O_EXCL)
        used = build(tarball, device)
        os.close(held)
        assert (used.returncode, "is in use" in used.stderr) == (1, True)


def test_what_is_wrong_with_the_source_leaves_a_device_without_a_table_and_says_so(
    tmp_path: Path, tarball: Path
) -> None:
    file = filled_file(tmp_path / "disk", SIZE)
    none, damaged = tmp_path / "none.tar.gz", tmp_path / "damaged.tar.gz"
    none.write_bytes(b"no archive" * 100)
    damaged.write_bytes(tarball.read_bytes()[:-500])
    with block_device(file) as device:
        refused = build(none, device)
        assert refused.returncode == 1
        assert refused.stderr.endswith("; nothing was written\n")
        assert file.read_bytes() == b"\xff" * SIZE
        failed = build(damaged, device)
        assert failed.returncode == 1
        assert failed.stderr.endswith(f"the file is truncated; {device} is not complete\n")
    assert has_no_beginning(file)


def test_a_device_has_a_size_of_its_own(tmp_path: Path, tarball: Path) -> None:
    file = filled_file(tmp_path / "disk", SIZE)
    with block_device(file) as device:
        done = build(tarball, device, "--size", "32M")
        assert done.returncode == 2
        assert "is a block device, which has a size of its own: leave --size out" in done.stderr
        done = build(tarball, device, "-O", "qcow2", "--size", "48M")
        assert done.returncode == 0, done.stderr
    assert file.read_bytes()[:4] == b"QFI\xfb"
