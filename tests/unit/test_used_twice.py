# SPDX-License-Identifier: MIT
"""A disk or a tree that one program uses twice: the second use is refused or waits, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pydiskimg import (
    Disk,
    InUseError,
    MemoryDisk,
    Region,
    copy,
    find_volumes,
    grow_last_volume,
    make_ext,
    make_swap,
    open_tree,
    populate,
    shrink_ext,
)
from pydiskimg.partitions.change import PartitionChange, new_table

MIB = 1 << 20
WRITERS: dict[str, Callable[[Disk], object]] = {
    "copy": lambda disk: copy(MemoryDisk(MIB, fill=1), disk),
    "make_ext": make_ext,
    "make_swap": make_swap,
    "populate": lambda disk: populate(disk, []),
    "shrink_ext": shrink_ext,
    "another tree": lambda disk: open_tree(disk, writable=True),
}


def two_partitions() -> tuple[MemoryDisk, Region, Region]:
    """A disk with a file system in the first of two partitions, and these."""
    disk = MemoryDisk(40 * MIB)
    table = new_table(disk)
    for _ in range(2):
        table.add(None, 16 * MIB, PartitionChange(), number=None, logical=False)
    first, second = (Region(disk, part.start, part.length) for part in table.partitions)
    make_ext(first)
    return disk, first, second


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_system_that_is_changed(write: Callable[[Disk], object]) -> None:
    disk, first, second = two_partitions()
    with open_tree(disk, writable=True) as tree:
        tree.write("/file", b"contents")
        before = bytes(disk.data)
        with pytest.raises(InUseError, match="tree changes it; close that one first"):
            write(first)
        assert disk.data == before
        make_swap(second)
        assert tree.read("/file") == b"contents"
    write(first)


def test_a_disk_on_which_files_are_changed() -> None:
    """The file system is a part of what would be written."""
    disk, _, _ = two_partitions()
    with open_tree(disk, writable=True) as tree:
        tree.write("/file", b"contents")
        before = bytes(disk.data)
        for write in (lambda: new_table(disk), lambda: copy(MemoryDisk(40 * MIB, fill=1), disk)):
            with pytest.raises(InUseError, match="a tree changes it"):
                write()
        assert disk.data == before
    assert [volume.is_ext for volume in find_volumes(disk)] == [True, False]


def test_the_growth_of_a_file_system_that_is_changed() -> None:
    disk = MemoryDisk(40 * MIB)
    table = new_table(disk)
    table.add(None, 16 * MIB, PartitionChange(), number=None, logical=False)
    make_ext(Region(disk, table.partitions[0].start, 16 * MIB))
    with open_tree(disk, writable=True) as tree:
        tree.write("/file", b"contents")
        before = bytes(disk.data)
        with pytest.raises(InUseError, match="a tree changes it"):
            grow_last_volume(disk)
        assert disk.data == before
    assert grow_last_volume(disk).has_grown


@pytest.mark.timeout(120)
def test_a_tree_that_threads_change() -> None:
    """Names were lost, and blocks had two owners."""
    disk = MemoryDisk(64 * MIB)
    make_ext(disk)
    tree = open_tree(disk, writable=True)

    def change(number: int) -> None:
        for step in range(12):
            with tree.together():
                tree.make_directory(f"/{number}-{step}")
                tree.write(f"/{number}-{step}/file", bytes([number, step]) * 3000)
            tree.write_files(f"/{number}-{step}", [(f"{name}", b"x" * 5000) for name in range(3)])
            if step % 3 == 0:
                tree.remove_tree(f"/{number}-{step}")
            else:
                tree.rename(f"/{number}-{step}/file", f"/{number}-{step}/renamed")

    with tree, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(change, range(4))) == [None] * 4
    with open_tree(disk) as read:
        kept = [(number, step) for number in range(4) for step in range(12) if step % 3]
        assert read.list("/") == sorted(["lost+found", *(f"{number}-{step}" for number, step in kept)])
        for number, step in kept:
            assert read.read(f"/{number}-{step}/renamed") == bytes([number, step]) * 3000
            assert read.list(f"/{number}-{step}") == ["0", "1", "2", "renamed"]
