# SPDX-License-Identifier: MIT
"""The space of file systems that the kernel has filled, against its own statfs()."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydiskimg.errors import FileSystemError
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
    ("xfs", "mkfs.xfs -q -m rmapbt=1 -d agcount=3", 500),
    ("xfs", "mkfs.xfs -q -b size=1024 -m reflink=0", 320),
    ("xfs", "mkfs.xfs -q -i size=1024 -m inobtcount=0,rmapbt=1 -b size=2048", 320),
    ("xfs", "mkfs.xfs -q -m finobt=0,reflink=0 -s size=4096", 320),
    ("btrfs", "mkfs.btrfs -q -m single", 120),
]


@pytest.mark.parametrize(("kind", "maker", "size"), MAKERS, ids=[maker for _, maker, _ in MAKERS])
def test_it_is_what_the_kernel_says(kind: str, maker: str, size: int, tmp_path: Path, tool: Tool) -> None:
    image = sized(tmp_path / "disk", size * MIB)
    run(*making(tool, maker), str(image))
    with open_disk(image, writable=True) as disk:
        with loop_device(disk.fd) as loop:
            with mounted(loop.path, fs_type=kind) as target:
                _fill(Path(target))
            # Mounted again: XFS frees what it had allocated past the ends of files only at unmount.
            with mounted(loop.path, fs_type=kind) as target:
                status = os.statvfs(target)
        space = file_system_space(disk, kind)
    assert space is not None
    block = status.f_frsize
    expected = (status.f_blocks * block, status.f_bfree * block, status.f_bavail * block)
    found = (space.size, space.size - space.used, space.available)
    if kind != "btrfs":
        assert found == expected
        assert space.inodes_used is not None
        assert (space.inodes, space.inodes_used) == (status.f_files, status.f_files - status.f_ffree)
    else:  # Linux holds back what a transaction may need, by the size of its trees, which the superblock does not have
        assert found[0] == expected[0]
        assert expected[1] <= found[1] <= expected[1] + size * MIB // 15


def test_an_xfs_without_the_headers_of_a_group_is_told(tmp_path: Path, tool: Tool) -> None:
    image = sized(tmp_path / "disk", 320 * MIB)
    run(*making(tool, "mkfs.xfs -q -d agcount=4"), str(image))
    with image.open("r+b") as file:
        file.seek(2 * 80 * MIB + 512)
        assert file.read(4) == b"XAGF"
        file.seek(-4, os.SEEK_CUR)
        file.write(b"XAGG")
    with open_disk(image) as disk, pytest.raises(FileSystemError, match="allocation group 2 "):
        file_system_space(disk, "xfs")


def _fill(root: Path) -> None:
    for number in range(150):
        (root / f"file {number}").write_bytes(b"x" * (number * 500))
    for number in range(0, 150, 3):
        (root / f"file {number}").unlink()
    (root / "directory").mkdir()
