# SPDX-License-Identifier: MIT
"""The kernel judges the file systems: mounted from loop devices, written to, mounted again, grown while mounted."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from pydiskimg.disks.block import BlockDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.new_file_system import ExtInfo
from pydiskimg.units import GIB, MIB
from tests.fixtures.block_devices import block_device, filled_file
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

KINDS = ("ext2", "ext3", "ext4")


def make(device: str, **options: object) -> ExtInfo:
    fd = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        return make_ext(BlockDisk(fd, device), **options)  # type: ignore[arg-type] # forwarded as they come
    finally:
        os.close(fd)


@contextmanager
def mounted(device: str, at: Path, kind: str, options: str = "defaults") -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    run("mount", "-t", kind, "-o", options, device, str(at))
    try:
        yield at
    finally:
        run("umount", str(at))


def content(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (number * 37 % 997)


def populate(root: Path) -> None:
    for number in range(300):
        directory = root / f"directory {number % 30}"
        directory.mkdir(exist_ok=True)
        (directory / f"file {number}").write_bytes(content(number))
    (root / "link").symlink_to("directory 1/file 31")
    os.setxattr(root / "directory 1", "user.note", b"x" * 300)
    (root / "large").write_bytes(b"7" * (5 * MIB))


def assert_populated(root: Path) -> None:
    for number in range(300):
        assert (root / f"directory {number % 30}" / f"file {number}").read_bytes() == content(number)
    assert (root / "link").read_bytes() == content(31)
    assert os.getxattr(root / "directory 1", "user.note") == b"x" * 300


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("block_size", [None, 1024, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_mounts_and_writes(
    kind: str, block_size: int | None, sector_size: int, tmp_path: Path, tool: Tool
) -> None:
    backing = filled_file(tmp_path / "disk", 100 * MIB + 3 * 4096)
    with block_device(backing, sector_size=sector_size) as device:
        if block_size is not None and block_size < sector_size:
            with pytest.raises(FileSystemError, match="smaller than the disk's sectors of 4096 bytes"):
                make(device, kind=kind, block_size=block_size)
            return
        info = make(device, kind=kind, block_size=block_size, label="test")
        assert info.block_size == block_size or max(1024, sector_size)
        with mounted(device, tmp_path / "mnt", kind) as root:
            assert os.listdir(root) == ["lost+found"]
            size = os.statvfs(root)
            assert (size.f_bsize, size.f_files, size.f_bfree) == (info.block_size, info.inodes, info.free_blocks)
            populate(root)
        run(tool("e2fsck"), "-fn", device)
        with mounted(device, tmp_path / "mnt", kind) as root:
            assert_populated(root)
        run(tool("e2fsck"), "-fn", device)


def groups_of(tool: Tool, device: str, expect: Container[int] = (0,)) -> list[str]:
    said = run(tool("dumpe2fs"), device, expect=expect)
    return [line for line in said.splitlines() if line.startswith("Group ") and "(" in line]


def test_lazy_initialisation_clears_what_the_disk_held(tmp_path: Path, tool: Tool) -> None:
    """The kernel's thread zeroes the inode tables, over old bytes, and marks the groups."""
    backing = filled_file(tmp_path / "disk", 200 * MIB)
    with block_device(backing) as device:
        make(device)
        assert len(groups_of(tool, device)) == 25
        assert not any("ITABLE_ZEROED" in line for line in groups_of(tool, device))
        with mounted(device, tmp_path / "mnt", "ext4", "init_itable=0") as root:
            populate(root)
            deadline = time.monotonic() + 120  # the thread starts after up to five seconds
            # 1: what a mounted file system is writing just now does not fit together.
            while time.monotonic() < deadline and any("ZEROED" not in it for it in groups_of(tool, device, (0, 1))):
                time.sleep(0.3)
        assert all("ITABLE_ZEROED" in line for line in groups_of(tool, device))
        run(tool("e2fsck"), "-fn", device)


def may_grow_mounted() -> bool:
    """The kernel asks for CAP_SYS_RESOURCE, which a container's root may lack."""
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    return bool(effective & 1 << 24)


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
def test_it_grows_in_place(kind: str, tmp_path: Path, tool: Tool) -> None:
    """While it is mounted where this process may do that, and else between two mounts."""
    backing = filled_file(tmp_path / "disk", 64 * MIB)
    with block_device(backing) as device:
        make(device, kind=kind)
        with mounted(device, tmp_path / "mnt", kind) as root:
            populate(root)
            os.truncate(backing, GIB)
            run(tool("losetup"), "--set-capacity", device)
            if may_grow_mounted():
                run(tool("resize2fs"), device)
        if not may_grow_mounted():
            run(tool("e2fsck"), "-f", "-p", device)
            run(tool("resize2fs"), device)
        with mounted(device, tmp_path / "mnt", kind) as root:
            assert os.statvfs(root).f_blocks * 1024 > 900 * MIB
            (root / "after").write_bytes(b"8" * (100 * MIB))
            assert_populated(root)
        run(tool("e2fsck"), "-fn", device)


def test_a_large_one_with_spread_descriptors_is_mounted(tmp_path: Path, tool: Tool) -> None:
    """1 TiB in blocks of 1 KiB: meta_bg, and a journal whose extents need a block of their own."""
    memory = Path("/dev/shm")  # writing the sparse file back to a disk would take ten times longer
    where = memory if os.access(memory, os.W_OK) else tmp_path
    with NamedTemporaryFile(dir=where) as backing:
        backing.truncate(1 << 40)
        check_large(Path(backing.name), tmp_path)


def check_large(backing: Path, tmp_path: Path) -> None:
    with block_device(backing) as device:
        fd = os.open(device, os.O_RDWR | os.O_EXCL)
        try:
            disk = BlockDisk(fd, device)
            disk.reads_as_zero = True
            make_ext(disk, block_size=1024)
        finally:
            os.close(fd)
        with mounted(device, tmp_path / "mnt", "ext4", "noinit_itable") as root:
            populate(root)
            assert_populated(root)
