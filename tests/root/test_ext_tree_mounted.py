# SPDX-License-Identifier: MIT
"""File systems that the kernel has filled and partly emptied, read by us without it: the same files to the byte."""

from __future__ import annotations

import os
import random
import shutil
import struct
from pathlib import Path

import pytest

from pydiskimg import open_tree
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.images.raw import open_raw
from pydiskimg.units import MIB
from tests.fixtures.block_devices import block_device
from tests.fixtures.ext_files import made_ext
from tests.fixtures.ext_trees import all_kinds, files_in, files_of
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

SIZE = 64 * MIB
FEATURES = (
    "-t ext2 -b 1024",
    "-t ext3 -b 4096",
    "-t ext4 -b 1024",
    "-t ext4 -O inline_data,ea_inode,large_dir -b 4096",
    "-t ext4 -O bigalloc,^metadata_csum -b 4096 -C 8192",
)


def fill(root: Path, *, large_values: bool) -> None:
    """Make what only root and the kernel can make, and take some of it away again."""
    all_kinds(root, names=1500)
    rng = random.Random(3)
    for number in range(0, 1500, 3):
        os.unlink(next((root / "many").glob(f"*name of {number}")) if number < 90 else _name(root, number))
    (root / "emptied").mkdir()
    for number in range(400):
        (root / "emptied" / f"{number} {'x' * (number % 90)}").write_bytes(rng.randbytes(number * 7))
    for path in list((root / "emptied").iterdir())[:350]:
        path.unlink()
    shutil.rmtree(root / "größe")
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "large number", 0o60600, os.makedev(260, 300_000))
    os.chown(root / "60 bytes", 70_001, 4_000_000_000)
    os.utime(root / "61 bytes", ns=(1, 5_000_000_000 * 10**9 + 123_456_789))
    os.utime(root / "1 bytes", ns=(-5, -7_000_000_001))
    for name, value in (
        ("user.a", b"1"),
        ("trusted.b", b""),
        ("security.c", b"\0\xff" * 20),
        ("user.long", b"l" * 700),
    ):
        os.setxattr(root / "1023 bytes", name, value)
    if large_values:
        os.setxattr(root / "1024 bytes", "user.in an inode of its own", rng.randbytes(20_000))
    entries = ((1, 7, -1), (2, 6, 1000), (4, 5, -1), (8, 4, 1234), (16, 7, -1), (32, 0, -1))
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, who & 0xFFFFFFFF) for tag, bits, who in entries
    )
    os.setxattr(root / "usr", "system.posix_acl_access", acl)
    os.setxattr(root / "usr", "system.posix_acl_default", acl)
    fd = os.open(root / "preallocated", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 100_000)
    os.pwrite(fd, b"written", 50_000)
    os.close(fd)


def _name(root: Path, number: int) -> Path:
    return root / "many" / f"the {'long ' * (number % 30)}name of {number}"


@pytest.mark.parametrize("options", FEATURES)
def test_the_kernels_files_are_read(tool: Tool, tmp_path: Path, options: str) -> None:
    image = made_ext(tool, tmp_path / "image", options, SIZE)
    at = tmp_path / "mounted"
    at.mkdir()
    with block_device(image) as device:
        run("mount", device, at)
        try:
            fill(at, large_values="ea_inode" in options)
            expected = files_of(at)
        finally:
            run("umount", at)
    with open_tree(image) as tree:
        found = files_in(tree)
        assert found.keys() == expected.keys()
        for path, facts in expected.items():
            assert found[path] == facts, path
    with open_raw(image) as file:
        report = check_ext(file)
    assert report.is_clean, report.details


@pytest.mark.parametrize("options", ["-t ext3 -b 1024", "-t ext4 -b 1024"])
def test_a_snapshot_of_a_running_system_is_read_as_recovery_leaves_it(tool: Tool, tmp_path: Path, options: str) -> None:
    """What was synced is in the journal, and hardly anything where it belongs: e2fsck replays it, we only read it."""
    image = made_ext(tool, tmp_path / "image", options, SIZE)
    at, copy = tmp_path / "mounted", tmp_path / "copy"
    at.mkdir()
    with block_device(image) as device:
        run("mount", "-o", "commit=100", device, at)
        try:
            all_kinds(at, names=500)
            for number in range(0, 500, 4):
                _name(at, number).unlink()
            fd = os.open(at / "last", os.O_CREAT | os.O_WRONLY)
            os.fsync(fd)
            os.close(fd)
            shutil.copyfile(image, copy)
        finally:
            run("umount", at)
    with open_tree(copy) as tree:
        assert tree.files.fs.source.size == SIZE
        found = files_in(tree)
    with open_raw(copy) as file:
        report = check_ext(file)
    assert report.is_clean, report.details
    assert report.replayed_blocks
    assert "recovering journal" in run(tool("e2fsck"), "-p", copy, expect=(0, 1))
    with open_tree(copy) as tree:
        assert found == files_in(tree)
    with block_device(copy) as device:
        run("mount", "-o", "ro", device, at)
        try:
            assert found == files_of(at)
        finally:
            run("umount", at)
    assert "/last" in found
