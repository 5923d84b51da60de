# SPDX-License-Identifier: MIT
"""The space of file systems that the kernel has filled, against its own statfs()."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.images.open_disk import open_disk
from pydiskimg.volumes.space import file_system_space
from tests.fixtures.ext_files import sized
from tests.fixtures.programs import Tool, making, run

pytestmark = pytest.mark.root

MIB = 1 << 20
MAKERS = [
    ("ext2", "mkfs.ext2 -q -b 1024", 40),
    ("ext3", "mkfs.ext3 -q -m 1", 40),
    ("ext4", "mkfs.ext4 -q", 64),
    ("ext4", "mkfs.ext4 -q -O bigalloc -C 16384 -m 3", 64),
    ("ext4", "mkfs.ext4 -q -O ^has_journal,meta_bg,^resize_inode -b 1024", 40),
    ("xfs", "mkfs.xfs -q", 320),
    ("btrfs", "mkfs.btrfs -q -m single", 120),
]


@pytest.mark.parametrize(("kind", "maker", "size"), MAKERS, ids=[maker for _, maker, _ in MAKERS])
def test_it_is_what_the_kernel_says(kind: str, maker: str, size: int, tmp_path: Path, tool: Tool) -> None:
    image = sized(tmp_path / "disk", size * MIB)
    run(*making(tool, maker), str(image))
    with open_disk(image, writable=True) as disk:
        with loop_device(disk.fd) as loop, mounted(loop.path, fs_type=kind) as target:
            _fill(Path(target))
            os.sync()
            status = os.statvfs(target)
        space = file_system_space(disk, kind)
    assert space is not None
    block = status.f_frsize
    expected = (status.f_blocks * block, status.f_bfree * block, status.f_bavail * block)
    found = (space.size, space.size - space.used, space.available)
    if kind in ("ext2", "ext3", "ext4"):
        assert found == expected
        assert space.inodes_used is not None
        assert (space.inodes, space.inodes_used) == (status.f_files, status.f_files - status.f_ffree)
    else:  # both hold something back while they are mounted: xfs 6 % of so small a disk, for its trees
        assert found[0] == expected[0]
        assert expected[1] <= found[1] <= expected[1] + size * MIB // 15
    if kind == "xfs":
        assert space.inodes_used == status.f_files - status.f_ffree


def _fill(root: Path) -> None:
    for number in range(150):
        (root / f"file {number}").write_bytes(b"x" * (number * 500))
    for number in range(0, 150, 3):
        (root / f"file {number}").unlink()
    (root / "directory").mkdir()
