# SPDX-License-Identifier: MIT
"""Entries put into an existing ext file system: what is read from it is what they said, and nothing else changed."""

from __future__ import annotations

import errno
import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import ArchiveError, NoSpaceError, StorageError
from pydiskimg.files.entry import Entry
from pydiskimg.files.source_pieces import source_pieces
from pydiskimg.files.tree import MissingPathError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.tree.entries import TreeEntries
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.text import printable
from pydiskimg.units import KIB, MIB
from tests.fixtures.ext_contents import contents_of
from tests.fixtures.journals import JournalWriter
from tests.fixtures.made_entries import (
    NAMED_ACL,
    entry,
    everything,
    filled_tree,
    folder,
    hard_link,
    regular,
    sparse,
    symlink,
)

KINDS = ("ext2", "ext3", "ext4")


def made(kind: str = "ext4", size: int = 8 * MIB, **options: Any) -> MemoryDisk:
    disk = MemoryDisk(size)
    make_ext(disk, kind=kind, **options)
    return disk


def facts(tree: ExtTree, path: str = "/") -> dict[str, tuple[object, ...]]:
    """What is to be compared of everything below path, and of path itself."""
    found: dict[str, tuple[object, ...]] = {}
    for name, status in [(path, tree.stat(path)), *tree.walk(path)]:
        is_file, is_link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
        data = tree.read(name, limit=64 * MIB) if is_file else tree.readlink(name) if is_link else b""
        size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        numbers = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev, size)
        times = (status.st_mtime_ns, status.st_atime_ns)
        found[name] = (*numbers, *times, data, tree.attributes(name, follow_symlinks=False))
    return found


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_entries_say_is_there(kind: str, block_size: int) -> None:
    """populate() with the same entries has its own tests."""
    disk = made(kind, block_size=block_size)
    with open_changed_tree(disk) as tree:
        put = tree.put(everything())
        assert (put.entries, put.bytes) == (16, 85)
        found = facts(tree)
    expected = facts(filled_tree(everything(), kind=kind, block_size=block_size))
    made_meanwhile = {"/missing", "/missing/parents", "/missing/parents/of", "/lost+found"}
    for facts_of_all in (found, expected):
        for path in made_meanwhile:
            facts_of_all[path] = facts_of_all[path][:6]
    assert found == expected


def test_a_second_time_everything_is_replaced_by_the_same() -> None:
    with open_changed_tree(made()) as tree:
        tree.put(everything())
        first = facts(tree)
        inode = tree.stat("/noted").st_ino
        tree.put(everything())
        again = facts(tree)
        for path in ("/missing/parents/of",):  # it was made meanwhile, and has changed
            del first[path], again[path]
        assert again == first
        assert tree.stat("/noted").st_ino == inode


def test_a_later_entry_replaces_what_is_there() -> None:
    with open_changed_tree(made()) as tree:
        tree.write("/file", b"old" * 5000, attributes={"user.note": b"n" * 500})
        tree.link("/file", "/kept")
        tree.make_directory("/directory")
        tree.symlink("/gone", "x" * 100)
        tree.symlink("/short", "x")
        tree.make_directory("/stays", mode=0o700, attributes={"user.kept": b"k"})
        tree.write("/stays/inside", b"x")
        tree.put(
            [
                regular("file", b"new"),
                symlink("directory", "kept"),
                regular("gone", b"no more"),
                symlink("short", "y" * 200),
                symlink("short", "z"),
                folder("stays", 0o711, uid=5),
                entry("node", stat.S_IFCHR, device=(1, 3)),
                entry("node", stat.S_IFCHR, device=(1, 5)),
            ]
        )
        assert (tree.read("/file"), tree.attributes("/file"), tree.read("/kept")) == (b"new", {}, b"old" * 5000)
        assert [tree.stat(path).st_nlink for path in ("/kept", "/file", "/")] == [1, 1, 4]
        assert (tree.readlink("/directory"), tree.readlink("/short"), tree.read("/gone")) == ("kept", "z", b"no more")
        assert (tree.stat("/stays").st_mode & 0o777, tree.stat("/stays").st_uid) == (0o711, 5)
        assert (tree.exists("/stays/inside"), tree.attribute("/stays", "user.kept")) == (True, b"k")
        assert tree.stat("/node").st_rdev == os.makedev(1, 5)


def test_a_symlink_to_a_directory_counts_as_one() -> None:
    with open_changed_tree(made()) as tree:
        tree.make_directory("/usr")
        tree.make_directory("/usr/lib")
        tree.symlink("/lib", "usr/lib")
        tree.put([folder("lib", 0o711), regular("lib/x", b"1"), folder("lib/y")])
        assert tree.readlink("/lib") == "usr/lib"
        assert (tree.read("/usr/lib/x"), tree.stat("/usr/lib").st_mode & 0o777) == (b"1", 0o711)


def test_paths_lead_where_the_guest_follows_them_and_stay_inside() -> None:
    with open_changed_tree(made()) as tree:
        for path in ("/run", "/var", "/srv"):
            tree.make_directory(path)
        tree.symlink("/var/run", "/../../run")
        tree.put([regular("run/pid", b"1")], "/var")
        assert tree.read("/run/pid") == b"1"
        with pytest.raises(ArchiveError, match=r"entry out/x: its path leads through an entry's symlink out of"):
            tree.put([symlink("out", "/run"), regular("out/x")], "/srv")
        with pytest.raises(ArchiveError, match=r"entry up/new/x: .* out of the target directory"):
            tree.put([symlink("up", ".."), regular("up/new/x")], "/srv")
        with pytest.raises(ArchiveError, match=r'has "\.\." in it'):
            tree.put([regular("../x")], "/srv")
        tree.put([symlink("out", "/run"), folder("out")], "/srv")
        assert stat.S_ISDIR(tree.stat("/srv/out", follow_symlinks=False).st_mode)
        tree.put([folder("real"), symlink("within", "./real"), regular("within/x", b"2")], "/srv")
        assert tree.read("/srv/real/x") == b"2"
        assert tree.list("/run") == ["pid"]


REFUSED: dict[str, tuple[list[Entry], str]] = {
    "file as parent": ([regular("a"), regular("a/b")], "a parent in its path is not a directory"),
    "nowhere": ([symlink("a", "gone"), regular("a/b")], "a symlink that leads nowhere inside the tree"),
    "circle": ([symlink("a", "b"), symlink("b", "a"), regular("a/b")], "more than 40 symlinks"),
    "no file to link": ([hard_link("a", "b")], "a hard link to b, which does not exist"),
    "link to directory": ([folder("b"), hard_link("a", "b")], "a hard link to the directory b"),
    "link to root": ([hard_link("a", ".")], "a hard link to the directory that the archive is unpacked into"),
    "long path": ([regular("a/" * 2100)], "longer than the kernel accepts"),
    "long name": ([regular("a" * 256)], "longer than the kernel accepts"),
    "NUL": ([regular("a\0b")], "a NUL byte in it"),
    "full directory": ([regular("a/b"), regular("a")], "it would replace a directory that is not empty"),
    "lost+found": ([regular("lost+found")], r"lost\+found, which every ext file system has"),
    "root": ([regular(".")], "the path of the directory that the archive is unpacked into"),
    "device": ([entry("a", stat.S_IFCHR, device=(5000, 1))], "its device number 5000:1"),
    "attribute": ([regular("a", xattrs={b"user.big": bytes(5000)})], "no room for the extended attribute user.big"),
    "acl": ([regular("a", acls={b"system.posix_acl_default": NAMED_ACL})], "which only a directory can have"),
    "acl name": ([regular("a", acls={b"system.posix_acl_access": NAMED_ACL})], "does not list it"),
    "empty target": ([symlink("a", "")], "an empty target"),
    "too large": ([sparse("a", 1 << 50, [])], "more than a file can have"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_is_refused_with_its_name(case: str) -> None:
    entries, message = REFUSED[case]
    disk = made()
    with open_changed_tree(disk) as tree:
        tree.write("/kept", b"kept")
        with pytest.raises((ArchiveError, StorageError), match=message) as raised:
            tree.put(iter(entries))
        assert str(raised.value).startswith("memory: entry ")
        tree.write("/after", b"after")
    assert {"/kept", "/after"} <= contents_of(disk).keys()


def test_thousands_of_files_go_by_several_transactions() -> None:
    names = [f"{number % 7}/{number:05}" for number in range(1000)]
    disk = made(size=16 * MIB, bytes_per_inode=2048)
    flushes = 0

    class Counting(MemoryDisk):
        def flush(self) -> None:
            nonlocal flushes
            flushes += 1

    counting = Counting(disk.size)
    counting.data = disk.data
    with open_changed_tree(counting) as tree:
        tree.put(regular(name, name.encode()) for name in names)
        assert all(tree.read(f"/{name}") == name.encode() for name in names)
        assert tree.list("/3") == [name[2:] for name in names if name.startswith("3/")]
    assert 9 < flushes < 60


def test_those_before_one_that_does_not_fit_are_whole_or_missing() -> None:
    disk = made(size=8 * MIB, bytes_per_inode=4096)
    with open_changed_tree(disk) as tree:
        entries = [regular(str(number), b"%d" % number * 2000) for number in range(1500)]
        with pytest.raises(NoSpaceError, match=r"entry \d+: cannot be unpacked: no block is free; make room") as raised:
            tree.put(entries)
        assert raised.value.errno == errno.ENOSPC
        found = [name for name in tree.list("/") if name != "lost+found"]
        assert len(found) > 200
        assert all(tree.read(f"/{name}") == name.encode() * 2000 for name in found)
        tree.write("/after", b"after")


@pytest.mark.parametrize("error", [ArchiveError("truncated"), KeyboardInterrupt()])
def test_an_error_of_the_source_leaves_whole_files(error: BaseException) -> None:
    def broken() -> Iterator[Entry]:
        yield regular("a", b"x" * MIB)
        yield sparse("b", MIB, failing())

    def failing() -> Iterator[tuple[int, bytes]]:
        yield 0, b"x" * 5000
        raise error

    disk = made()
    before = contents_of(disk)
    with open_changed_tree(disk) as tree, pytest.raises(type(error)):
        tree.put(broken())
    assert contents_of(disk) == before


def test_together_with_others_it_is_one_change() -> None:
    disk = made()
    before = contents_of(disk)

    def failing(tree: ChangedTree) -> None:
        with tree.together():
            tree.put(everything())
            tree.write("/more", b"more")
            tree.remove("/none")

    with open_changed_tree(disk) as tree:
        with pytest.raises(StorageError):
            failing(tree)
        assert contents_of(disk) == before
        with tree.together():
            tree.put(everything())
            tree.write("/more", b"more")
            assert contents_of(disk) == before
    assert {"/more", "/etc/through"} <= contents_of(disk).keys()


def test_what_a_directory_hands_on_is_not_mixed_into_entries() -> None:
    """But for flags: cp -a gives a copy the owner, the mode and the ACLs of its original, too."""
    with open_changed_tree(made()) as tree:
        tree.make_directory("/d", mode=0o2755)
        default = bytes.fromhex("02000000") + bytes.fromhex("01000700ffffffff 04000500ffffffff 20000500ffffffff")
        tree.set_attribute("/d", "system.posix_acl_default", default)
        tree.put([regular("x", b"x", gid=3, mode=0o640), folder("missing/y", 0o700)], "/d")
        status = tree.stat("/d/x")
        assert (status.st_gid, status.st_mode & 0o7777, tree.attributes("/d/x")) == (3, 0o640, {})
        assert tree.attributes("/d/missing/y") == {}


def test_a_source_is_written_with_its_holes() -> None:
    original = MemoryDisk(20 * MIB)
    original.write(0, b"a" * 5000)
    with open_changed_tree(made(size=16 * MIB)) as tree:
        tree.put([sparse("first", 20 * MIB, [(0, b"a" * 5000), (19 * MIB, b"b" * 4096)])])
        tree.write_pieces("/second", source_pieces(tree.open("/first")), 20 * MIB, mode=0o600)
        assert tree.read("/second", limit=20 * MIB) == tree.read("/first", limit=20 * MIB)
        assert tree.stat("/second").st_blocks * 512 < 64 * KIB


NODES: dict[str, tuple[int, tuple[int, int]]] = {
    "character": (stat.S_IFCHR | 0o620, (4, 64)),
    "block": (stat.S_IFBLK | 0o660, (259, 70000)),
    "fifo": (stat.S_IFIFO | 0o600, (0, 0)),
    "socket": (stat.S_IFSOCK | 0o777, (0, 0)),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes(name: str) -> None:
    mode, device = NODES[name]
    with open_changed_tree(made()) as tree:
        tree.make_node("/node", mode, device=device, attributes={"security.x": b"y"})
        status = tree.stat("/node")
        assert (status.st_mode, status.st_rdev) == (mode, os.makedev(*device))
        assert tree.attribute("/node", "security.x") == b"y"
        with pytest.raises(ValueError, match="is not the mode of a device"):
            tree.make_node("/other", 0o644)


def test_times_of_directories_are_their_entries() -> None:
    with open_changed_tree(made()) as tree:
        tree.put([folder("d", mtime_ns=5, atime_ns=6), *(regular(f"d/{number}") for number in range(600))])
        assert (tree.stat("/d").st_mtime_ns, tree.stat("/d").st_atime_ns) == (5, 6)


CHANGES: dict[str, Callable[[ChangedTree], object]] = {
    "a directory that is none": lambda tree: tree.put([regular("x")], "/etc"),
    "a missing directory": lambda tree: tree.put([regular("x")], "/none"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_where_entries_go_must_be_a_directory(case: str) -> None:
    with open_changed_tree(made()) as tree:
        tree.write("/etc", b"")
        with pytest.raises(StorageError, match=r"memory, /(etc|none): (is not a directory|does not exist)"):
            CHANGES[case](tree)


def test_a_tree_is_removed_with_all_that_is_in_it() -> None:
    for kind in ("ext4", "ext2"):
        disk = made(kind, size=16 * MIB, bytes_per_inode=4096)
        with open_changed_tree(disk) as tree:
            links = tree.stat("/").st_nlink
            tree.make_directory("/kept")
            tree.put(regular(f"top/{number % 5}/{number % 3}/{number}", b"x" * 2000) for number in range(400))
            tree.put(everything(), "/top/1")
            tree.link("/top/1/noted", "/kept/noted")
            tree.remove_tree("/top")
            assert tree.list("/") == ["kept", "lost+found"]
            assert tree.attributes("/kept/noted").keys() == {"user.note", "security.capability", "user.empty"}
            tree.remove_tree("/kept/noted")
            tree.remove_tree("/kept")
            assert tree.stat("/").st_nlink == links
            with pytest.raises(MissingPathError):
                tree.remove_tree("/kept")


def test_a_tree_with_a_file_that_stays_is_removed_in_part_at_most() -> None:
    disk = made()
    with open_changed_tree(disk) as tree:
        tree.put([regular("d/a", b"a"), regular("d/e/fixed", b"b", flags=0x10), regular("d/z", b"c")])
        with pytest.raises(StorageError, match=r"memory, /d/e/fixed: is immutable"):
            tree.remove_tree("/d")
        assert tree.read("/d/e/fixed") == b"b"
        tree.write("/after", b"after")


def test_flags_of_directories_wait_for_their_files() -> None:
    """An immutable directory takes no files, and what it would hand on to files is not in their entries."""
    disk, flags = made(), {"a": 0x10, "b": 0x20 | 0x80, "c": 0x80, "d": 0x20 | 0x80}
    with open_changed_tree(disk) as tree:
        both = [[folder(name, flags=value), regular(f"{name}/new", b"")] for name, value in flags.items()]
        tree.put([folder("d", flags=0x10), *(entry for some in both for entry in some)])
        found = {printable(entry.path): entry.flags for entry in TreeEntries(tree, "/").entries()}
    assert {name: value for name, value in found.items() if value} == flags


def test_a_directory_that_contains_itself_is_damaged() -> None:
    disk = made()
    with open_changed_tree(disk) as tree:
        tree.put([folder("d"), folder("d/e"), folder("d/e/f")])
        number = tree.stat("/d").st_ino
        changes = tree._changes
        with tree._changing("/d"):
            changes.change_names(tree.stat("/d/e/f").st_ino, {b"up": changes.inode(number)})
        with pytest.raises(StorageError, match=f"the directory of inode {number} has two names") as raised:
            tree.remove_tree("/d")
        assert raised.value.errno == errno.EUCLEAN


def test_what_a_log_has_for_free_blocks_does_not_get_over_new_contents() -> None:
    """The kernel's logs have no copies of blocks that are free at their end; a hostile one may have."""
    contents = b"new contents" * 10_000
    disk = made()
    scratch = MemoryDisk(disk.size)
    scratch.data[:] = disk.data
    with open_changed_tree(scratch) as tree:
        tree.write("/file", contents)
    writer = JournalWriter(disk)
    first = scratch.data.index(contents[: writer.size]) // writer.size
    writer.write({first + index: b"of the log".ljust(writer.size, b"!") for index in range(20)})
    writer.commit()
    writer.close()
    with open_changed_tree(disk) as tree:
        tree.write("/file", contents)
        assert tree.read("/file") == contents
    assert disk.data.index(contents[: writer.size]) // writer.size == first
    assert contents_of(disk)["/file"].contents == contents


def test_deep_directories_take_memory_once() -> None:
    """The paths of 600 nested directories with long names would take 45 MiB together."""
    disk = made(block_size=1024, bytes_per_inode=2048)
    with open_changed_tree(disk) as tree:
        changes = tree._changes
        with tree._changing("/"):
            above = changes.inode(layout.ROOT_INODE)
            for number in range(600):
                directory = changes.make(above, b"%04d" % number + b"x" * 250, stat.S_IFDIR | 0o755)
                above = changes.inode(directory.number)
        tracemalloc.start()
        assert sum(1 for _ in tree.walk()) == 601
        tree.remove_tree("/0000" + "x" * 250)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * MIB
    assert contents_of(disk).keys() == {"/lost+found"}
