# SPDX-License-Identifier: MIT
"""A file system filled from entries: what is read from it is what they said, and what cannot be is refused."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from pydiskimg import populate
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import ArchiveError, FileSystemError, NoSpaceError, StorageError
from pydiskimg.files.acl import AclEntry, decode
from pydiskimg.files.dump import open_dump
from pydiskimg.files.dump.entries import DumpEntries
from pydiskimg.files.entry import Entry
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.regions.region import Region
from pydiskimg.units import KIB, MIB
from tests.fixtures.dumps import dump, small_tree
from tests.fixtures.made_entries import (
    FIXED,
    NAMED_ACL,
    NOW,
    entry,
    everything,
    filled,
    filled_tree,
    folder,
    hard_link,
    regular,
    sparse,
    symlink,
)

KINDS = ("ext2", "ext3", "ext4")


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_entries_say_is_there(kind: str, block_size: int) -> None:
    tree = filled_tree(everything(), kind=kind, block_size=block_size)
    assert tree.read("/etc/through") == b"a parent that is a symlink"
    assert tree.read("/missing/parents/of/file") == b"inside"
    assert stat.S_IMODE(tree.stat("/missing/parents").st_mode) == 0o755
    root, etc = tree.stat("/"), tree.stat("/etc")
    assert (root.st_mode, root.st_uid, root.st_nlink) == (stat.S_IFDIR | 0o1777, 7, 5)
    assert (etc.st_mode, etc.st_gid, etc.st_nlink) == (stat.S_IFDIR | 0o750, 70000, 2)
    assert etc.st_mtime_ns == 1_600_000_000_123_456_789
    assert tree.stat("/etc/passwd").st_nlink == 2
    assert tree.stat("/etc/passwd").st_ino == tree.stat("/etc/second").st_ino
    assert tree.readlink("/short") == "etc"
    assert tree.readlink("/long") == "x/" * 200
    assert tree.stat("/old-device").st_rdev == os.makedev(4, 64)
    assert tree.stat("/new-device").st_rdev == os.makedev(259, 70000)
    assert [stat.S_IFMT(tree.stat(path).st_mode) for path in ("/fifo", "/socket")] == [stat.S_IFIFO, stat.S_IFSOCK]
    owned = tree.stat("/owned")
    assert (owned.st_uid, owned.st_gid, owned.st_mode) == (4_000_000_000, 100_000, stat.S_IFREG | 0o6755)
    assert owned.st_ctime_ns == NOW * 10**9
    assert tree.attributes("/noted") == {
        "user.note": b"n" * 300,
        "security.capability": bytes(20),
        "user.empty": b"",
    }
    name = os.fsdecode(b"/latin-\xe4" + b"n" * 248)
    assert (tree.stat(name).st_mtime_ns, tree.stat(name).st_atime_ns) == (-1, (1 << 33) * 10**9 + 5)


def test_an_acl_is_kept_with_the_trees_own_numbers_and_its_mode() -> None:
    tree = filled_tree(everything())
    found = decode(tree.attributes("/listed")["system.posix_acl_access"])
    assert AclEntry(b"user", 1234, 6) in found
    assert len(found) == len(NAMED_ACL)
    assert stat.S_IMODE(tree.stat("/listed").st_mode) == 0o764


def pattern(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def around_limits(block_size: int) -> list[int]:
    """Sizes around those with which a file gets another block, and another level of its map."""
    pointers = block_size // 4
    blocks = [1, 12, 12 + pointers, 12 + pointers + pointers, 12 + pointers + pointers**2]
    limits = [block_size * count for count in blocks if count * block_size <= 80 * MIB]
    return sorted({0, 1, *(limit + more for limit in limits for more in (-1, 0, 1))})


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_sizes_around_the_limits_of_maps(kind: str) -> None:
    sizes = around_limits(1024)
    # Of a large file only the end is stored: its place in the map is what matters.
    pieces = {size: [(max(size - 3000, 0), pattern(min(size, 3000)))] if size else [] for size in sizes}
    tree = filled_tree((sparse(f"{size}", size, pieces[size]) for size in sizes), kind=kind, block_size=1024)
    for size in sizes:
        with_zeros = b"".join(bytes(offset) + data for offset, data in pieces[size])
        assert tree.read(f"/{size}", limit=100 * MIB) == with_zeros


@pytest.mark.parametrize("kind", ["ext3", "ext4"])
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_a_file_of_many_pieces_is_sparse(kind: str, block_size: int) -> None:
    step = 3 * block_size
    pieces = [(number * step, pattern(number % block_size + 1)) for number in range(1, 1500)]
    with filled_tree([sparse("many", 1600 * step, pieces)], kind=kind, block_size=block_size) as tree:
        data = tree.read("/many", limit=40 * MIB)
        expected = bytearray(1600 * step)
        for offset, piece in pieces:
            expected[offset : offset + len(piece)] = piece
        assert hashlib.sha256(data).digest() == hashlib.sha256(expected).digest()
        assert tree.stat("/many").st_blocks * 512 < 1530 * block_size


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, b"a" * 10), (10, b"b" * 2000), (2010, b"c")],
        [(100, b"a" * 10), (200, b"b" * 10), (1023, b"cc"), (4000, b"d" * 5000)],
        [(5000, b"a"), (5001, b""), (9999, b"b")],
        [(0, b"beyond the size" * 1000)],
    ],
)
def test_pieces_that_begin_and_end_inside_of_blocks(pieces: list[tuple[int, bytes]]) -> None:
    size = 10_000
    expected = bytearray(size)
    for offset, data in pieces:
        expected[offset : offset + len(data)] = data
    tree = filled_tree([sparse("file", size, pieces)], block_size=1024)
    assert tree.read("/file") == expected[:size]


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_directories_of_many_names(count: int, block_size: int) -> None:
    names = [f"name-{number:05}-" + "n" * (number % 97) for number in range(count)]
    tree = filled_tree(
        [folder("d"), *(regular(f"d/{name}") for name in names)], block_size=block_size, bytes_per_inode=1024
    )
    assert tree.list("/d") == names


def test_the_same_entries_give_the_same_bytes() -> None:
    def digest(**options: Any) -> bytes:
        return hashlib.sha256(filled(everything(), **options).data).digest()

    assert digest() == digest()
    assert digest() != digest(now=NOW + 1)


def test_a_later_entry_replaces_an_earlier_one() -> None:
    tree = filled_tree(
        [
            regular("file", b"old" * 5000, xattrs={b"user.note": b"n" * 500}),
            hard_link("kept", "file"),
            regular("file", b"new"),
            regular("linked", b"old"),
            hard_link("linked", "file"),
            folder("directory"),
            symlink("directory", "kept"),
            symlink("gone", "x" * 100),
            regular("gone", b"no more"),
            folder("stays", 0o700),
            regular("stays/inside", b"x"),
            folder("stays", 0o711, uid=5),
        ]
    )
    assert tree.read("/file") == tree.read("/linked") == b"new"
    assert tree.read("/kept") == b"old" * 5000
    assert [tree.stat(path).st_nlink for path in ("/kept", "/file", "/")] == [1, 2, 4]
    assert tree.readlink("/directory") == "kept"
    assert tree.read("/gone") == b"no more"
    assert (tree.stat("/stays").st_mode & 0o777, tree.stat("/stays").st_uid) == (0o711, 5)
    assert tree.exists("/stays/inside")


def test_what_was_replaced_is_free_again() -> None:
    large = pattern(6 * MIB)
    entries = (regular("file", large[number:]) for number in range(8))
    tree = filled_tree(entries, size=16 * MIB, kind="ext4")
    assert tree.read("/file", limit=8 * MIB) == large[7:]


REFUSED = {
    "dots": ([regular("a/../b")], r'has "\.\." in it'),
    "file as parent": ([regular("a"), regular("a/b")], "a parent in its path is not a directory"),
    "nowhere": ([symlink("a", "gone"), regular("a/b")], "a symlink that leads nowhere inside the tree"),
    "circle": ([symlink("a", "b"), symlink("b", "a"), regular("a/b")], "its path leads through more than 40 symlinks"),
    "no file to link": ([hard_link("a", "b")], "a hard link to b, which does not exist"),
    "link to directory": ([folder("b"), hard_link("a", "b")], "a hard link to the directory b"),
    "link to root": ([hard_link("a", ".")], "a hard link to the directory that the archive is unpacked into"),
    "long path": ([regular("a/" * 2100)], "longer than the kernel accepts"),
    "long name": ([regular("a" * 256)], "longer than the kernel accepts"),
    "full directory": ([regular("a/b"), regular("a")], "it would replace a directory that is not empty"),
    "lost+found": ([regular("lost+found")], r"lost\+found, which every ext file system has"),
    "root": ([regular(".")], "the path of the directory that the archive is unpacked into"),
    "device": ([entry("a", stat.S_IFCHR, device=(5000, 1))], "its device number 5000:1"),
    "attribute": (
        [regular("a", xattrs={b"user.big": bytes(5000)})],
        "the attribute user.big of 5000 bytes does not fit",
    ),
    "acl": ([regular("a", acls={b"system.posix_acl_default": NAMED_ACL})], "which only a directory can have"),
    "acl name": ([regular("a", acls={b"system.posix_acl_access": NAMED_ACL})], "does not list it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_is_refused_with_its_name(case: str) -> None:
    entries, message = REFUSED[case]
    disk = MemoryDisk(16 * MIB)
    with pytest.raises(ArchiveError, match=message) as raised:
        populate(disk, entries)
    assert str(raised.value).startswith("memory: entry ")
    with pytest.raises(FileSystemError):
        open_ext_tree(disk)


def test_a_symlink_leads_inside_the_file_system_only() -> None:
    tree = filled_tree(
        [folder("usr/lib"), symlink("lib", "/../../usr/lib"), regular("lib/x", b"1"), symlink("up", "..")]
    )
    assert tree.read("/usr/lib/x") == b"1"


def test_an_attribute_of_another_system_is_left_out_and_counted() -> None:
    attributes = {b"com.apple.provenance": b"1", b"user.kept": b"2"}
    made = populate(
        MemoryDisk(16 * MIB), [regular("a", xattrs=attributes), symlink("b", "a", xattrs={b"user.x": b"3"})]
    )
    assert (made.left_out.count, made.left_out.first) == (2, "com.apple.provenance of a")
    with pytest.raises(StorageError, match="entry a: cannot be unpacked: Invalid argument"):
        populate(MemoryDisk(16 * MIB), [regular("a", xattrs={b"trusted.": b"1"})])


def test_names_are_not_replaced_where_none_may_come_twice() -> None:
    with pytest.raises(ArchiveError, match="duplicate name, or a file of this name already exists"):
        filled([regular("a"), regular("a")], replacing=False)
    filled([folder("."), folder("lost+found", 0o755)], replacing=False)
    with pytest.raises(ArchiveError, match=r"entry lost\+found: duplicate name"):
        filled([folder("."), folder("lost+found"), folder("lost+found")], replacing=False)


def test_a_full_disk_is_told_with_the_file_and_is_no_file_system() -> None:
    disk = MemoryDisk(16 * MIB)
    with pytest.raises(NoSpaceError, match=r"memory: entry b: cannot be unpacked: none of .* blocks is free") as raised:
        populate(disk, [regular("a", b"x" * 5 * MIB), regular("b", pattern(12 * MIB))])
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(FileSystemError):
        open_ext_tree(disk)


def test_a_disk_that_is_full_before_the_directories_is_told_with_one() -> None:
    disk = MemoryDisk(16 * MIB)
    free = populate(disk, [], **FIXED).file_system.free_blocks  # beside the blocks of / and /lost+found
    names = [regular(f"d/e/{number}" + "n" * 200) for number in range(200)]
    with pytest.raises(NoSpaceError, match=r"memory: the directory /d/e: cannot be written: none of the file system's"):
        populate(disk, [*names, regular("large", b"x" * (free - 2) * KIB)], **FIXED)
    with pytest.raises(FileSystemError):
        open_ext_tree(disk)


def test_no_inode_left_is_told_with_the_file() -> None:
    entries = (regular(f"{number}") for number in range(100_000))
    with pytest.raises(
        NoSpaceError, match=r"entry \d+: cannot be unpacked: none of the file system's 256 inodes is free"
    ):
        filled(entries, bytes_per_inode=64 * KIB)


def test_ext2_has_fewer_links() -> None:
    entries = [regular("file"), *(hard_link(f"{number}", "file") for number in range(32_000))]
    with pytest.raises(StorageError, match="entry 31999: its file already has 32000 names"):
        filled(entries, kind="ext2", size=16 * MIB)


def test_a_partition_is_filled_and_nothing_around_it() -> None:
    disk = MemoryDisk(18 * MIB, fill=0xFF)
    populate(Region(disk, MIB, 16 * MIB), everything(), **FIXED)
    assert disk.data[:MIB] == disk.data[17 * MIB :] == b"\xff" * MIB
    with open_ext_tree(Region(disk, MIB, 16 * MIB)) as tree:
        assert tree.read("/etc/through") == b"a parent that is a symlink"


def test_entries_of_many_directories_are_kept_apart() -> None:
    paths = [f"{first}/{second}/same" for first in range(20) for second in range(20)]
    tree = filled_tree([regular(path, path.encode()) for path in paths], size=16 * MIB)
    assert all(tree.read(f"/{path}") == path.encode() for path in paths)
    assert _links(tree, "/") == 23


def _links(tree: ExtTree, path: str) -> int:
    return tree.stat(path).st_nlink


def test_a_dump_is_a_stream_of_entries() -> None:
    with open_dump(io.BytesIO(dump(small_tree())), "a.dump") as reader:
        tree = filled_tree(DumpEntries(reader, None), replacing=False)
    assert tree.read("/hello") == tree.read("/etc/hello-too")
    assert tree.stat("/hello").st_ino == tree.stat("/etc/hello-too").st_ino
    assert tree.readlink("/link") == "etc/empty"
    assert stat.S_ISFIFO(tree.stat("/etc/" + os.fsdecode(b"\xff\n")).st_mode)


def test_an_interrupted_one_is_no_file_system() -> None:
    def broken() -> Iterator[Entry]:
        yield regular("a", b"x" * 3 * MIB)
        raise ArchiveError("truncated")

    disk = filled(everything())
    open_ext_tree(disk)
    with pytest.raises(ArchiveError, match="truncated"):
        populate(disk, broken())
    with pytest.raises(FileSystemError):
        open_ext_tree(disk)
