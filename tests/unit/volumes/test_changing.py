# SPDX-License-Identifier: MIT
"""One tree at a time changes a file system, also where an open disk is handed to several."""

from __future__ import annotations

import gc

import pytest

from pydiskimg import InUseError, MemoryDisk, Region, make_ext, open_tree
from pydiskimg.errors import DiskImageError
from pydiskimg.partitions.make import Content, NewPartition, plan_partition_table
from pydiskimg.units import MIB


@pytest.fixture
def disk() -> MemoryDisk:
    """Two partitions with a file system each."""
    disk = MemoryDisk(34 * MIB)
    table = plan_partition_table(disk.size, 512, [NewPartition(Content.LINUX, 16 * MIB), NewPartition(Content.LINUX)])
    for partition in table.partitions:
        make_ext(Region(disk, partition.start, partition.length))
    table.write(disk)
    return disk


def test_a_second_tree_is_refused_until_the_first_is_closed(disk: MemoryDisk) -> None:
    with open_tree(disk, writable=True, partition=1) as tree:
        tree.write("/one", b"1")
        before = bytes(disk.data)
        with pytest.raises(InUseError, match=r"partition 1.*: is in use \(another tree changes it; close that one"):
            open_tree(disk, writable=True, partition=1)
        whole = Region(disk, 0, disk.size)
        with pytest.raises(InUseError, match="another tree"):
            open_tree(whole, writable=True, partition=1)
        assert disk.data == before
        with open_tree(disk, writable=True, partition=2) as other:
            other.write("/other", b"2")
        assert open_tree(disk, partition=1).read("/one") == b"1"
        tree.write("/two", b"2")
    with open_tree(disk, writable=True, partition=1) as tree:
        assert tree.read("/two") == b"2"


def test_a_tree_that_cannot_be_opened_holds_nothing(disk: MemoryDisk) -> None:
    superblock = MIB + 1024
    good = bytes(disk.data[superblock : superblock + 1024])
    disk.data[superblock + 0x64] ^= 0x80  # a feature that changes have to know
    with pytest.raises(DiskImageError, match="partition 1"):
        open_tree(disk, writable=True, partition=1)
    disk.data[superblock : superblock + 1024] = good
    with open_tree(disk, writable=True, partition=1) as tree:
        tree.write("/one", b"1")


def test_a_tree_that_is_dropped_holds_nothing(disk: MemoryDisk) -> None:
    tree = open_tree(disk, writable=True, partition=1)
    tree.write("/one", b"1")
    del tree
    gc.collect()
    with open_tree(disk, writable=True, partition=1) as tree:
        assert tree.read("/one") == b"1"
