# SPDX-License-Identifier: MIT
"""Directories with trees of hashes, in which names are found, added and removed: e2fsck and debugfs judge."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import count as count_from
from itertools import islice
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4 import directory_writer, layout
from pydiskimg.fs.ext4.change import index
from pydiskimg.fs.ext4.change.directories import LARGE_DIRECTORY
from pydiskimg.fs.ext4.change.files import FileChanges
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.directory_entries import directory_entries
from pydiskimg.fs.ext4.directory_index import DirectoryIndex, opened_index
from pydiskimg.fs.ext4.directory_writer import DirectoryWriter
from pydiskimg.fs.ext4.file_system import read_file_system
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.populate import filling
from pydiskimg.fs.ext4.populate.populate import populate
from pydiskimg.fs.ext4.tree import files, open_ext_tree
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.protocols import WritableBuffer
from pydiskimg.units import KIB, MIB
from tests.fixtures.ext_files import made_ext
from tests.fixtures.judged_ext import judged
from tests.fixtures.made_entries import FIXED, folder, hard_link, regular
from tests.fixtures.made_up_hashes import MadeUpHash
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

COUNT = 3000
VERSIONS = {"legacy": 0, "half_md4": 1, "tea": 2}


def name_of(number: int) -> bytes:
    return b"%06d-" % number + b"n" * 240


class CountedDisk(MemoryDisk):
    """Counts the reads of a disk."""

    reads = 0

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self.reads += 1
        super().read_into(offset, buffer)


def filled(count: int, size: int, *, kind: str = "ext4") -> CountedDisk:
    """Return a file system with a directory /d of links to one file."""
    disk = CountedDisk(size)
    names = (hard_link(b"d/" + name_of(number), b"one") for number in range(count))
    populate(disk, [folder("d"), regular("one", b"1"), *names], kind=kind, block_size=1024, **FIXED)
    return disk


def directory_of(tree: ExtTree) -> StoredInode:
    return tree.inode("/d")


def test_a_name_is_found_in_a_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_INDEXED_SIZE", MIB)
    disk = filled(COUNT, 16 * MIB)
    with open_ext_tree(disk) as tree:
        inode, one = directory_of(tree), tree.inode("/one").number
        tree.files.find(inode, b"first")
        before = disk.reads
        for number in range(0, COUNT, 29):
            assert tree.files.find(inode, name_of(number)) == one
            assert tree.files.find(inode, name_of(number)[:-1]) is None
        assert disk.reads - before < 4 * 2 * COUNT // 29


@pytest.mark.parametrize("number", [0, 1])
def test_what_a_damaged_tree_does_not_lead_to_is_searched(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_INDEXED_SIZE", 0)
    disk = filled(400, 8 * MIB, kind="ext3")  # where no checksum says so
    with open_ext_tree(disk) as tree:
        block = opened_index(tree.files.fs, directory_of(tree)).where(number)
    at = block * KIB + (layout.DX_NODE.size if number else layout.DX_ROOT.size)
    disk.data[at : at + 2] = b"\xff\xff"  # more entries than there is room for
    with open_ext_tree(disk) as tree:
        inode, one = directory_of(tree), tree.inode("/one").number
        for wanted in range(400):
            assert tree.files.find(inode, name_of(wanted)) == one
        assert tree.files.find(inode, name_of(7)[:-1]) is None


class Colliding(MadeUpHash):
    """Gives each group of seven names the same hash, in leaves of three."""

    def __call__(self, name: bytes) -> int:
        return int(name[:6]) // 7 * 2


def test_names_of_one_hash_are_found_in_all_leaves_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "DirectoryHash", Colliding)
    disk = filled(1000, 8 * MIB)
    fs = read_file_system(disk)
    with open_ext_tree(disk) as tree:
        inode, one = directory_of(tree), tree.inode("/one").number
        tree_of_hashes = DirectoryIndex(fs, inode, Colliding(bytes(16), is_signed=True), 1)
        assert all(tree_of_hashes.find(name_of(number)) == one for number in range(1000))
        assert tree_of_hashes.find(name_of(1000)) is None
        assert len([*tree_of_hashes.leaves(name_of(500))]) > 1


def transaction_of(disk: MemoryDisk) -> tuple[Transaction, FileChanges]:
    transaction = Transaction(disk)
    return transaction, FileChanges(transaction)


def link_all(disk: MemoryDisk, numbers: Iterable[int], *, at_once: int) -> None:
    """Give the file /one further names in /d."""
    with open_ext_tree(disk) as tree:
        directory, one = directory_of(tree).number, tree.inode("/one").number
    transaction, changes = transaction_of(disk)
    for count, number in enumerate(numbers, start=1):
        changes.link(changes.inode(directory), name_of(number), changes.inode(one))
        if count % at_once == 0:
            transaction.commit()
    transaction.commit()
    transaction.close()


def names_of(disk: MemoryDisk) -> set[bytes]:
    fs = read_file_system(disk)
    with open_ext_tree(disk) as tree:
        return {name for name, _, _ in directory_entries(fs, directory_of(tree))}


@pytest.mark.parametrize("options", ["-t ext4 -b 1024", "-t ext3 -b 1024", "-t ext4 -b 2048 -O bigalloc -C 8192"])
def test_a_tree_grows_by_its_leaves_and_tables(tool: Tool, tmp_path: Path, options: str) -> None:
    """Leaves of three names are split; so are tables, and the root gets one more level."""
    disk = MemoryDisk(24 * MIB)
    disk.data[:] = made_ext(tool, tmp_path / "image", options, disk.size).read_bytes()
    with open_changed_tree(disk) as tree:
        tree.make_directory("/d")
        tree.write("/one", b"1")
    numbers = [*range(700)]
    random.Random(3).shuffle(numbers)
    link_all(disk, numbers, at_once=200)
    assert names_of(disk) == {name_of(number) for number in numbers}
    judged(tool, tmp_path, disk)
    levels = 1 if "-b 1024" in options else 0
    assert f"Indirect levels: {levels}" in run(tool("debugfs"), "-R", "htree_dump /d", tmp_path / "judged")


def test_a_tree_gets_a_third_level(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """large_dir: two full levels of tables get a third one, and a directory that is written again has three."""
    monkeypatch.setattr(directory_writer, "_LEAF_FILL", (1, 4))  # one name in each leaf, of which three fit
    checksums = read_file_system(filled(1, 8 * MIB)).checksums
    writer = DirectoryWriter(KIB, checksums)
    count = writer.limit(layout.DX_ROOT.size) * writer.limit(layout.DX_NODE.size)
    path = tmp_path / "image"
    path.write_bytes(filled(count, 64 * MIB).data)
    run(tool("tune2fs"), "-O", "large_dir", path)
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(path.read_bytes())
    more = _of_the_first_leaf(disk, count)
    link_all(disk, more, at_once=2)
    expected = {name_of(number) for number in (*range(count), *more)}
    assert names_of(disk) == expected
    assert _levels(tool, tmp_path, disk, "/d") == 2
    with open_changed_tree(disk) as tree:
        tree.remove("/d/" + name_of(more[0]).decode())
        tree.put([regular(b"d/" + name_of(more[1]), b"2"), regular("d/short", b"3")], "/")
        tree.make_directory("/e")
        tree.rename("/d", "/e/d")
    assert _levels(tool, tmp_path, disk, "/e/d") == 2
    with open_ext_tree(disk) as tree:
        inode, one = tree.inode("/e/d"), tree.inode("/one").number
        tree_of_hashes = opened_index(tree.files.fs, inode)
        assert all(tree_of_hashes.find(name_of(number)) == one for number in range(0, count, 7))
        assert [tree_of_hashes.find(name_of(number)) in (one, None) for number in more] == [True, False, True]
        assert tree_of_hashes.find(name_of(more[0])) is None
        assert tree.read("/e/d/short") == b"3"


def _of_the_first_leaf(disk: MemoryDisk, first: int) -> list[int]:
    """Return three numbers from first on whose names belong into the first leaf."""
    fs = read_file_system(disk)
    with open_ext_tree(disk) as tree:
        tree_of_hashes = opened_index(fs, directory_of(tree))
    end = tree_of_hashes.path(0)[-1].table.hashes[1]
    return [*islice((number for number in count_from(first) if tree_of_hashes.hashing(name_of(number)) < end), 3)]


def _levels(tool: Tool, tmp_path: Path, disk: MemoryDisk, path: str) -> int:
    """Return the levels of tables below the root's that a sound directory has."""
    judged(tool, tmp_path, disk)
    shown = run(tool("debugfs"), "-R", f"htree_dump {path}", tmp_path / "judged")
    return int(shown.partition("Indirect levels: ")[2].split()[0])


def test_a_tree_that_is_full_is_written_again(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = filled(250, 24 * MIB)
    monkeypatch.setattr(index, "most_levels", lambda _: 0)
    link_all(disk, range(250, 600), at_once=100)
    assert names_of(disk) == {name_of(number) for number in range(600)}
    judged(tool, tmp_path, disk)


def test_many_names_of_a_large_directory_change_together(tool: Tool, tmp_path: Path) -> None:
    """Names come, go and get another file, some of each in a commit, without the directory being written again."""
    disk = filled(3200, 16 * MIB)
    with open_changed_tree(disk) as tree:
        before = directory_of(tree)
        assert before.size >= LARGE_DIRECTORY
        tree.put([regular(b"d/" + name_of(number), b"new") for number in range(2900, 3500)], "/")
        with tree.together():
            for number in range(20):
                tree.remove("/d/" + name_of(number).decode())
        with tree.together():
            tree.put([regular(b"d/more", b"2")], "/")
            tree.remove("/d/" + name_of(3210).decode())
    assert names_of(disk) == {name_of(number) for number in range(20, 3500) if number != 3210} | {b"more"}
    with open_ext_tree(disk) as tree:
        assert tree.read("/d/" + name_of(3300).decode()) == b"new"
        assert tree.read("/d/" + name_of(2899).decode()) == b"1"
    judged(tool, tmp_path, disk)


def test_a_large_directory_goes(tool: Tool, tmp_path: Path) -> None:
    disk = filled(3200, 16 * MIB)
    with open_changed_tree(disk) as tree:
        tree.remove_tree("/d")
        assert tree.list("/") == ["lost+found", "one"]
    judged(tool, tmp_path, disk)


@pytest.mark.parametrize("algorithm", [*VERSIONS])
@pytest.mark.parametrize("flags", [1, 2])
def test_trees_of_all_hashes_are_used(tool: Tool, tmp_path: Path, algorithm: str, flags: int) -> None:
    """e2fsck -D makes the tree by the hash that the superblock has, of signed (1) or unsigned bytes."""
    names = [f"{number:04}-größe-{'ß' * (number % 60)}" for number in range(400)]
    (tmp_path / "files" / "d").mkdir(parents=True)
    (tmp_path / "files" / "one").write_bytes(b"1")
    for name in names:
        (tmp_path / "files" / "d" / name).touch()
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024", 8 * MIB, tmp_path / "files")
    values = f"set_super_value flags {flags}\nset_super_value def_hash_version {algorithm}\n"
    run(tool("debugfs"), "-w", "-f", "-", path, given=values)
    run(tool("e2fsck"), "-fyD", path, expect=(0, 1))
    disk = MemoryDisk(8 * MIB)
    disk.data[:] = path.read_bytes()
    fs = read_file_system(disk)
    with open_ext_tree(disk) as tree:
        inode = directory_of(tree)
        found = {name: number for name, number, _ in directory_entries(fs, inode)}
        tree_of_hashes = opened_index(fs, inode)
        assert {name: tree_of_hashes.find(name) for name in found} == found
        assert len(found) == len(names)
    link_all(disk, range(200), at_once=100)
    assert names_of(disk) == {*found, *(name_of(number) for number in range(200))}
    judged(tool, tmp_path, disk)
    assert f"Hash Version: {VERSIONS[algorithm]}" in run(tool("debugfs"), "-R", "htree_dump /d", tmp_path / "judged")
