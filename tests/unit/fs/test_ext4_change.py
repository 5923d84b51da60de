# SPDX-License-Identifier: MIT
"""Files of an ext file system changed as a Tree: what is refused, what is taken back, what hostile bytes can do."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError, FileSystemError, NoSpaceError, StorageError
from pydiskimg.files.tree import ExistingPathError, MissingPathError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.leaf import Leaf
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.file_system import read_file_system
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.units import MIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.made_entries import everything, regular, symlink
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk

Change = Callable[[ChangedTree], object]


def filled(kind: str = "ext4") -> MemoryDisk:
    """Return a file system of 8 MiB with a few files."""
    disk = MemoryDisk(8 * MIB)
    make_ext(disk, kind=kind)
    with open_changed_tree(disk) as tree:
        tree.make_directory("/etc")
        tree.write("/etc/hostname", b"before\n")
        tree.write_files("/etc", [(f"number {number}", b"x" * number) for number in range(120)])
        tree.symlink("/link", "/etc/hostname")
        tree.symlink("/loop", "loop")
        tree.symlink("/up", "../../../etc/new")
        tree.write("/large", b"y" * 100_000, attributes={"user.large": b"z" * 600})
        tree.link("/large", "/large too")
    return disk


REFUSED: dict[str, tuple[Change, int]] = {
    "missing": (lambda tree: tree.remove("/etc/none"), errno.ENOENT),
    "missing directory": (lambda tree: tree.write("/none/file", b""), errno.ENOENT),
    "replace nothing": (lambda tree: tree.replace("/etc/none", b""), errno.ENOENT),
    "below a file": (lambda tree: tree.write("/etc/hostname/x", b""), errno.ENOTDIR),
    "write a directory": (lambda tree: tree.write("/etc", b""), errno.EISDIR),
    "remove a directory": (lambda tree: tree.remove("/etc"), errno.EISDIR),
    "remove a full directory": (lambda tree: tree.remove_directory("/etc"), errno.ENOTEMPTY),
    "remove a file as a directory": (lambda tree: tree.remove_directory("/large"), errno.ENOTDIR),
    "make what is there": (lambda tree: tree.make_directory("/etc"), errno.EEXIST),
    "link to what is there": (lambda tree: tree.symlink("/link", "x"), errno.EEXIST),
    "a loop": (lambda tree: tree.write("/loop", b""), errno.ELOOP),
    "a long name": (lambda tree: tree.write("/" + "n" * 256, b""), errno.ENAMETOOLONG),
    "a long target": (lambda tree: tree.symlink("/new", "n" * 5000), errno.ENAMETOOLONG),
    "the root": (lambda tree: tree.remove("/"), errno.EBUSY),
    "into itself": (lambda tree: tree.rename("/etc", "/etc/etc"), errno.EINVAL),
    "no such attribute": (lambda tree: tree.remove_attribute("/large", "user.none"), errno.ENODATA),
    "a strange attribute": (lambda tree: tree.set_attribute("/large", "strange", b""), errno.EOPNOTSUPP),
    "a malformed ACL": (lambda tree: tree.set_attribute("/etc", "system.posix_acl_access", b"x"), errno.EINVAL),
    "a default ACL of a file": (
        lambda tree: tree.set_attribute("/large", "system.posix_acl_default", struct.pack("<I", 2)),
        errno.EACCES,
    ),
    "a large attribute": (lambda tree: tree.set_attribute("/large", "user.more", b"x" * 5000), errno.ENOSPC),
    "a directory's second name": (lambda tree: tree.link("/etc", "/etc too"), errno.EPERM),
    "too large": (lambda tree: tree.truncate("/large", 1 << 50), errno.EFBIG),
}


@pytest.fixture(scope="module")
def bytes_before() -> bytes:
    return bytes(filled().data)


def disk_with(data: bytes) -> MemoryDisk:
    disk = MemoryDisk(len(data))
    disk.data[:] = data
    return disk


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(bytes_before: bytes, name: str) -> None:
    change, number = REFUSED[name]
    disk = disk_with(bytes_before)
    with open_changed_tree(disk) as tree, pytest.raises(StorageError) as caught:
        change(tree)
    assert caught.value.errno == number
    assert isinstance(caught.value, MissingPathError) == (number == errno.ENOENT)
    assert isinstance(caught.value, ExistingPathError) == (number == errno.EEXIST)
    assert isinstance(caught.value, NoSpaceError) == (number == errno.ENOSPC)
    assert bytes(disk.data) == bytes_before


def test_symlinks_stay_inside(bytes_before: bytes) -> None:
    disk = disk_with(bytes_before)
    with open_changed_tree(disk) as tree:
        tree.write("/link", b"after\n")
        tree.write("/up", b"new\n", mode=0o600)
        assert (tree.read("/etc/hostname"), tree.read("/etc/new")) == (b"after\n", b"new\n")
        assert tree.stat("/etc/new").st_mode & 0o7777 == 0o600


def test_contents_under_another_name_stay(bytes_before: bytes) -> None:
    disk = disk_with(bytes_before)
    with open_changed_tree(disk) as tree:
        tree.replace("/large", b"alone")
        assert (tree.read("/large"), tree.read("/large too")) == (b"alone", b"y" * 100_000)
        assert tree.attribute("/large", "user.large") == b"z" * 600
        assert [tree.stat(path).st_nlink for path in ("/large", "/large too")] == [1, 1]


def test_changes_together_are_taken_back_together(bytes_before: bytes) -> None:
    disk = disk_with(bytes_before)
    before = contents_of(disk)
    tree = open_changed_tree(disk)
    with pytest.raises(MissingPathError):
        renamed_and_missed(tree)
    assert tree.read("/etc/hostname") == b"before\n"
    tree.close()
    assert contents_of(disk) == before


def renamed_and_missed(tree: ChangedTree) -> None:
    with tree.together():
        tree.rename("/etc", "/other")
        with suppress(MissingPathError):
            tree.remove("/none")
        assert tree.read("/other/hostname") == b"before\n"
        tree.remove("/none")


def test_a_file_that_fails_leaves_no_half_of_another(bytes_before: bytes) -> None:
    disk = disk_with(bytes_before)
    with open_changed_tree(disk) as tree:
        tree.make_directory("/etc/b")
        with pytest.raises(StorageError, match="/etc/b: is a directory"):
            tree.write_files("/etc", [("a", b"first"), ("b", b"not over a directory"), ("c", b"last")])
    found = contents_of(disk)
    assert "/etc/c" not in found
    assert "/etc/a" not in found or found["/etc/a"].contents == b"first"


def test_nothing_is_written_before_the_first_change(bytes_before: bytes) -> None:
    disk = StoppingDisk(disk_with(bytes_before), 0)
    with open_changed_tree(disk) as tree:
        assert tree.read("/etc/hostname") == b"before\n"


def test_after_a_failed_write_nothing_more_is_written(bytes_before: bytes) -> None:
    disk = StoppingDisk(disk_with(bytes_before), 5)
    tree = open_changed_tree(disk)
    with pytest.raises(StoppedError):
        tree.write("/etc/hostname", b"after\n")
    with pytest.raises(FileSystemError, match="an earlier write failed"):
        tree.write("/etc/hostname", b"after\n")
    tree.close()
    assert disk.written == 5


@pytest.mark.parametrize(("flag", "words"), [(layout.IMMUTABLE_FLAG, "immutable"), (layout.VERITY_FLAG, "fs-verity")])
def test_flags_that_forbid_a_change(flag: int, words: str) -> None:
    disk = MemoryDisk(8 * MIB)
    make_ext(disk, kind="ext2")
    with open_changed_tree(disk) as tree:
        tree.write("/file", b"as it was")
        inode = tree.inode("/file")
        at = inode.block * tree.files.fs.geometry.block_size + inode.offset + layout.INODE.offsets["i_flags"]
    disk.data[at : at + 4] = flag.to_bytes(4, "little")
    with open_changed_tree(disk) as tree:
        changes: list[Change] = [
            lambda tree: tree.write("/file", b""),
            lambda tree: tree.remove("/file"),
            lambda tree: tree.chmod("/file", 0),
        ]
        for change in changes:
            with pytest.raises(StorageError, match=words):
                change(tree)
        assert tree.read("/file") == b"as it was"


HOSTILE: list[Change] = [
    lambda tree: tree.write("/large", b"a" * 5000),
    lambda tree: tree.append("/large", b"b" * 5000),
    lambda tree: tree.truncate("/large", 100),
    lambda tree: tree.write("/etc/new", b"1"),
    lambda tree: tree.remove("/large too"),
    lambda tree: tree.rename("/etc", "/other"),
    lambda tree: tree.set_attribute("/large", "user.more", b"v" * 100),
    lambda tree: tree.make_directory("/etc/below"),
    lambda tree: tree.write_files("/etc", [(f"number {number}", b"") for number in range(20)]),
    lambda tree: tree.put(everything()),
    lambda tree: tree.put([*(regular(f"number {number}", b"n") for number in range(90)), symlink("x", "y")], "/etc"),
    lambda tree: tree.remove_tree("/etc"),
]


@pytest.mark.parametrize("kind", ["ext2", "ext3"])
def test_hostile_bytes_end_in_an_error_or_a_change(kind: str) -> None:
    """Without checksums, a few bytes of metadata or of any block are changed."""
    data, rng = bytes(filled(kind).data), random.Random(4)
    used = [at for at in range(1024, len(data), 4) if any(data[at : at + 4])]
    for _ in range(40):
        disk = disk_with(data)
        for _ in range(rng.choice((1, 2, 5, 20))):
            at = used[rng.randrange(min(rng.choice((300, 5000, len(used))), len(used)))] + rng.randrange(4)
            disk.data[at] = rng.choice((0, 1, 0xFF, rng.randrange(256), disk.data[at] ^ 1 << rng.randrange(8)))
        with suppress(DiskImageError), open_changed_tree(disk) as tree:
            for change in rng.sample(HOSTILE, 3):
                with suppress(DiskImageError):
                    change(tree)


def test_a_block_of_hashes_that_kept_the_bytes_of_a_tail() -> None:
    """The kernel makes one of a block of entries and leaves the end as it is, but for the checksum."""
    disk = MemoryDisk(8 * MIB)
    make_ext(disk, block_size=1024)
    block = bytearray(1024)
    for at, length, name in ((0, 12, b"."), (12, 1012, b"..")):
        entry = layout.DIRECTORY_ENTRY.pack(inode=2, rec_len=length, name_len=len(name), file_type=2)
        block[at : at + 8 + len(name)] = entry + name
    tail = layout.DIRECTORY_TAIL
    block[-tail.size :] = tail.pack(det_rec_len=tail.size, det_reserved_ft=layout.DIRECTORY_TAIL_TYPE)
    leaf = Leaf(read_file_system(disk), bytes(block), "inode 2")
    assert not leaf.has_tail
    assert [slot.name for slot in leaf.slots()] == [b".", b".."]
