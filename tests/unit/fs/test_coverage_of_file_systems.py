# SPDX-License-Identifier: MIT
"""The size that superblocks state for their file systems, and the reason if one must not grow."""

from __future__ import annotations

import random
import struct

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.layout import SUPERBLOCK, SUPERBLOCK_OFFSET
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.probe.size import coverage
from pydiskimg.units import KIB, MIB


def ext(kind: str = "ext4", **fields: int) -> MemoryDisk:
    disk = MemoryDisk(16 * MIB, name="/dev/x")
    make_ext(disk, kind=kind, block_size=1024)
    SUPERBLOCK.put(disk.data, fields, SUPERBLOCK_OFFSET)
    return disk


def btrfs(*, devices: int = 1, sector: int = 4096, size: int = 8 * MIB) -> MemoryDisk:
    disk = MemoryDisk(MIB)
    disk.write(64 * KIB + 136, struct.pack("<QI", devices, sector))
    disk.write(64 * KIB + 209, struct.pack("<Q", size))
    return disk


def test_ext() -> None:
    found = coverage(ext(), "ext4")
    assert (found.size, found.block_size) == (16 * MIB, 1024)
    assert found.limit == ((1 << 48) - 1) * 1024
    assert coverage(ext("ext2"), "ext2").limit == ((1 << 32) - 1) * 1024


def test_the_high_half_counts_with_64bit_only() -> None:
    assert coverage(ext(s_blocks_count_hi=1), "ext4").size == (16 * 1024 + (1 << 32)) * 1024
    assert coverage(ext("ext3", s_blocks_count_hi=1), "ext3").size == 16 * MIB


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("ext4", {"s_state": 3}, "errors are recorded"),
        ("ext2", {"s_state": 2}, "errors are recorded"),
        ("ext2", {"s_state": 0}, "has no journal and was not unmounted"),
        ("ext4", {"s_log_block_size": 7}, "in blocks of 131072"),
        ("ext4", {"s_log_block_size": 0xFFFFFFFF}, "in blocks of 1048576"),
        ("ext4", {"s_blocks_count_lo": 0}, "states 0 bytes"),
    ],
)
def test_ext_that_must_not_grow(kind: str, fields: dict[str, int], message: str) -> None:
    with pytest.raises(FileSystemError, match=f"/dev/x: .*{message}"):
        coverage(ext(kind, **fields), kind)


def test_a_journal_that_has_to_be_replayed_is_no_hindrance() -> None:
    assert coverage(ext("ext3", s_state=0), "ext3").size == 16 * MIB


def test_btrfs() -> None:
    assert coverage(btrfs(), "btrfs").size == 8 * MIB
    for lie, message in (
        ({"devices": 2}, "2 devices"),
        ({"sector": 0}, "blocks of 0"),
        ({"size": 0}, "states 0 bytes"),
    ):
        with pytest.raises(FileSystemError, match=message):
            coverage(btrfs(**lie), "btrfs")


def test_xfs() -> None:
    disk = MemoryDisk(MIB)
    disk.write(0, struct.pack(">4sIQ", b"XFSB", 4096, 81920))
    assert coverage(disk, "xfs").size == 320 * MIB


def test_others_have_none() -> None:
    with pytest.raises(ValueError, match="'swap' has no coverage"):
        coverage(MemoryDisk(MIB), "swap")


def test_changed_bytes() -> None:
    rng = random.Random(5)
    clean = bytes(ext().data[: 2 * KIB])
    for _ in range(500):
        disk = MemoryDisk(MIB)
        disk.write(0, clean)
        for _ in range(4):
            disk.data[1024 + rng.randrange(1024)] = rng.randrange(256)
        try:
            found = coverage(disk, "ext4")
        except FileSystemError:
            continue
        assert 512 <= found.block_size <= 64 * KIB
        assert found.size > 0
