# SPDX-License-Identifier: MIT
"""Entries put into file systems of mke2fs: e2fsck judges afterwards, and after every interruption."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pydiskimg.errors import NoSpaceError
from pydiskimg.files.entry import Entry
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.units import KIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.judged_ext import FEATURES, SIZE, disk_of, judged, repaired
from tests.fixtures.made_entries import everything, folder, hard_link, regular, symlink
from tests.fixtures.programs import Tool
from tests.fixtures.stopping_disk import LosingDisk, StoppedError, StoppingDisk

pytestmark = pytest.mark.oracle


def many() -> Iterator[Entry]:
    """Entries that make, fill, replace and empty directories of one to several blocks."""
    rng = random.Random(5)
    for number in range(75):
        yield regular(f"many/{'n' * 40}{number:03}", rng.randbytes(rng.randrange(3000)), mode=0o600 + number % 64)
    for number in range(0, 75, 3):
        yield symlink(f"many/{'n' * 40}{number:03}", "t" * (1 + number))
    for number in range(1, 75, 3):
        yield hard_link(f"more/{number}", f"many/{'n' * 40}{number:03}")
    for number in range(2, 75, 3):
        yield folder(f"made/{number % 5}/{number}")
        yield regular(f"made/{number % 5}/{number}/x", b"y" * 2000, xattrs={b"user.long": b"z" * number * 10})


@pytest.mark.parametrize("options", FEATURES)
def test_everything_and_many_over_everything_and_many(tool: Tool, tmp_path: Path, options: str) -> None:
    disk = disk_of(tool, tmp_path, options)
    has_attributes = "-r 0" not in options
    with open_changed_tree(disk) as tree:
        for _ in range(2):
            for entries in (everything(), many()):
                tree.put(entry for entry in entries if has_attributes or not (entry.xattrs or entry.acls))
                judged(tool, tmp_path, disk)
    judged(tool, tmp_path, disk)
    found = contents_of(disk)
    assert found["/etc/through"].contents == b"a parent that is a symlink"
    assert (found["/" + "many/" + "n" * 40 + "003"].contents, found["/more/1"].links) == (b"tttt", 2)


def new_files() -> Iterator[Entry]:
    """Twenty entries: new files, one that is replaced, links, a directory in which some lie."""
    rng = random.Random(2)
    yield regular("old", rng.randbytes(9000), mode=0o640, uid=5, xattrs={b"user.x": b"y" * 300})
    yield folder("new", 0o750)
    for number in range(10):
        yield regular(f"new/{number}", rng.randbytes(number * 700))
    yield hard_link("new/hard", "new/5")
    yield symlink("new/soft", "t" * 100)
    for number in range(6):
        yield regular(f"deep/{number % 2}/{number}", b"in a directory that no entry is for")


@pytest.mark.parametrize("options", ["-t ext4 -b 1024", "-t ext2 -b 1024", "-t ext4 -b 1024 -O ^has_journal"])
def test_an_interruption_leaves_each_file_as_before_or_as_it_is_to_be(tool: Tool, tmp_path: Path, options: str) -> None:
    """After every number of writes, with what was not flushed lost in part and in any order."""
    disk = disk_of(tool, tmp_path, options)
    with open_changed_tree(disk) as tree:
        tree.write("/old", b"old" * 3000, attributes={"user.a": b"b"})
    start, before = bytes(disk.data), contents_of(disk)
    counting = StoppingDisk(disk, 1 << 30)
    with open_changed_tree(counting) as tree:
        tree.put(new_files())
    after, rng = contents_of(disk), random.Random(3)
    outcomes = set()
    for writes in range(counting.written):
        disk.data[:] = start
        losing = LosingDisk(disk, writes, 1 * KIB)
        with suppress(StoppedError), open_changed_tree(losing) as tree:
            tree.put(new_files())
        losing.lose(rng)
        found = repaired(tool, tmp_path, disk)
        for path, one in found.items():
            expected = [state[path][:3] + state[path][4:] for state in (before, after) if path in state]
            assert one[:3] + one[4:] in expected, f"{path} after {writes} writes"
        assert before.keys() <= found.keys() <= after.keys()
        outcomes.add(len(found))
    assert {len(before), len(after)} <= outcomes
    if "journal" not in options and "ext4" in options:
        assert outcomes == {len(before), len(after)}


def test_a_full_file_system_stays_sound(tool: Tool, tmp_path: Path) -> None:
    disk = disk_of(tool, tmp_path, "-t ext4 -b 1024 -N 1500")
    with open_changed_tree(disk) as tree:
        with pytest.raises(NoSpaceError, match="no block is free"):
            tree.put(regular(f"{number % 9}/{number}", bytes(4000)) for number in range(2000))
        judged(tool, tmp_path, disk)
        with pytest.raises(NoSpaceError, match="no inode is free"):
            tree.put(regular(f"{number % 9}/{number}") for number in range(2000))
    judged(tool, tmp_path, disk)
    assert len(contents_of(disk)) > 600


@pytest.mark.parametrize("options", ["-t ext4 -b 1024 -N 1500", "-t ext2 -b 1024 -N 1500", "-t ext3 -b 1024 -N 1500"])
def test_a_tree_on_a_full_file_system_is_removed(tool: Tool, tmp_path: Path, options: str) -> None:
    """In several transactions; each but the last leaves a part of a directory of many blocks."""
    disk = disk_of(tool, tmp_path, options)
    with open_changed_tree(disk) as tree:
        tree.put(regular(f"d/{'n' * (number % 200)}{number}") for number in range(1300))
        with suppress(NoSpaceError):
            tree.put([regular("large", bytes(SIZE), mode=0o600)])
        free = SIZE
        while free:
            with suppress(NoSpaceError):
                tree.write(f"/d/filler {free}", b"x" * free)
                continue
            free //= 2
        counting, judged_after = tree._transaction.commit, 0

        def commit() -> None:
            nonlocal judged_after
            counting()
            judged_after += 1
            if judged_after == 2:
                tree._transaction.close()
                judged(tool, tmp_path, disk)

        tree._transaction.commit = commit  # type: ignore[method-assign]
        tree.remove_tree("/d")
        assert judged_after > 1
        assert tree.list("/") == ["lost+found"]
    judged(tool, tmp_path, disk)


@pytest.mark.parametrize("options", ["-t ext4 -b 1024", "-t ext2 -b 1024"])
def test_an_interruption_of_removing_leaves_each_file_whole_or_removed(
    tool: Tool, tmp_path: Path, options: str
) -> None:
    disk = disk_of(tool, tmp_path, options)
    with open_changed_tree(disk) as tree:
        tree.put(regular(f"d/{number % 3}/{number}", b"%d" % number * 500) for number in range(15))
        tree.put([hard_link("kept", "d/1/1"), symlink("d/soft", "t" * 100)])
    start, before = bytes(disk.data), contents_of(disk)
    counting = StoppingDisk(disk, 1 << 30)
    with open_changed_tree(counting) as tree:
        tree.remove_tree("/d")
    after, rng = contents_of(disk), random.Random(3)
    assert after.keys() == {"/kept", "/lost+found"}
    outcomes = set()
    for writes in range(counting.written):
        for _ in range(2 if "ext2" in options else 1):
            disk.data[:] = start
            losing = LosingDisk(disk, writes, 1 * KIB)
            with suppress(StoppedError), open_changed_tree(losing) as tree:
                tree.remove_tree("/d")
            losing.lose(rng)
            found = repaired(tool, tmp_path, disk)
            assert after.keys() <= found.keys() <= before.keys(), f"after {writes} writes"
            for path, one in found.items():
                assert one.contents == before[path].contents, f"{path} after {writes} writes"
            outcomes.add(len(found))
    assert {len(before), len(after)} <= outcomes
