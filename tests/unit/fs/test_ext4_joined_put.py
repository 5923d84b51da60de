# SPDX-License-Identifier: MIT
"""Entries put into several ext file systems as one tree: each lies where a guest that mounts them all would find it."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import ArchiveError, MountPointError, NoSpaceError, StorageError
from pydiskimg.files.entry import Entry
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.new_file_system import NewExt
from pydiskimg.fs.ext4.populate.filling import Filling
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.units import MIB
from tests.fixtures.made_entries import NAMED_ACL, everything, folder, hard_link, regular, symlink

MTIME = 1_600_000_000_123_456_789  # of made entries


class Guest:
    """A root with /etc, and /boot and /var of their own; what the root has below these is hidden."""

    def __init__(self, stack: ExitStack, kind: str = "ext4") -> None:
        self.disks = [MemoryDisk(8 * MIB) for _ in range(3)]
        for disk in self.disks:
            make_ext(disk, kind=kind)
        self.root, self.boot, self.var = (stack.enter_context(open_changed_tree(disk)) for disk in self.disks)
        for path in ("/etc", "/boot", "/boot/below", "/var"):
            self.root.make_directory(path)
        self.root.write("/boot/hidden", b"")
        self.var.make_directory("/lib")
        self.tree = JoinedTree(self.root)
        self.tree.join("/boot", self.boot)
        self.tree.join("/var", self.var)


@pytest.fixture(params=["ext2", "ext4"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    with ExitStack() as stack:
        yield Guest(stack, request.param)


def mtime(tree: ChangedTree, path: str) -> int:
    return tree.stat(path).st_mtime_ns


def test_each_goes_where_its_path_lies(guest: Guest) -> None:
    done = guest.tree.put(
        [
            folder("boot", 0o711),
            folder("etc", 0o750),
            folder("new"),
            folder("var", uid=5),
            regular("boot/kernel", b"kernel"),
            regular("boot/grub/x/grub.cfg", b"set"),
            regular("etc/motd", b"hello"),
            regular("new/file", b"1"),
            regular("var/lib/state", b"22", uid=7, mode=0o600),
        ]
    )
    assert (done.entries, done.bytes) == (9, 17)
    assert guest.boot.read("/kernel") == b"kernel"
    assert guest.boot.read("/grub/x/grub.cfg") == b"set"
    assert guest.root.read("/etc/motd") == b"hello"
    assert guest.root.list("/boot") == ["below", "hidden"]
    state = guest.var.stat("/lib/state")
    assert (state.st_uid, state.st_mode) == (7, stat.S_IFREG | 0o600)
    assert (guest.boot.stat("/").st_mode & 0o777, guest.root.stat("/boot").st_mode & 0o777) == (0o711, 0o755)
    assert guest.var.stat("/").st_uid == 5
    # What came into them later does not count, wherever what came between lies.
    assert [mtime(guest.boot, "/"), mtime(guest.root, "/etc"), mtime(guest.root, "/new")] == [MTIME] * 3


def test_symlinks_of_the_guest_lead_where_it_follows_them(guest: Guest) -> None:
    guest.root.symlink("/lib", "var/lib")
    guest.boot.symlink("/conf", "/etc")
    guest.var.symlink("/up", "../boot")
    guest.tree.put(
        [
            folder("lib", 0o700),
            regular("lib/a", b"a"),
            folder("boot/conf"),
            regular("boot/conf/b", b"b"),
            regular("var/up/c", b"c"),
            regular("var/up/conf/d", b"d"),
        ]
    )
    assert guest.root.readlink("/lib") == "var/lib"
    assert guest.var.read("/lib/a") == b"a"
    assert guest.var.stat("/lib").st_mode & 0o777 == 0o700
    assert (guest.root.read("/etc/b"), guest.root.read("/etc/d")) == (b"b", b"d")
    assert guest.boot.read("/c") == b"c"


def test_symlinks_of_entries_too(guest: Guest) -> None:
    guest.tree.put(
        [
            regular("in/file", b"1"),
            symlink("to", "etc"),
            regular("to/first", b"1"),
            symlink("to", "boot/below"),
            folder("boot/below"),
            regular("to/second", b"2"),
            symlink("to", "/var/lib"),
            regular("to/third", b"3"),
        ]
    )
    assert guest.root.read("/etc/first") == b"1"
    assert guest.boot.read("/below/second") == b"2"
    assert guest.var.read("/lib/third") == b"3"


def test_a_symlink_to_what_is_hidden_leads_nowhere(guest: Guest) -> None:
    guest.root.symlink("/to", "boot/below")
    with pytest.raises(ArchiveError, match="entry to/file: a parent in its path is a symlink that leads nowhere"):
        guest.tree.put([regular("to/file", b"")])
    guest.tree.put([folder("to"), regular("to/file", b"seen")])
    assert guest.root.read("/to/file") == b"seen"
    assert guest.root.list("/boot/below") == []


def test_what_another_lies_over_is_not_replaced(guest: Guest) -> None:
    for other in (regular("boot", b"x"), symlink("boot", "etc"), hard_link("boot", "etc/motd")):
        with pytest.raises(
            MountPointError, match="entry boot: it would replace a directory on which a file system is mounted"
        ):
            guest.tree.put([regular("etc/motd", b""), other])
    with pytest.raises(ArchiveError, match="entry boot/kernel/x: a parent in its path is not a directory"):
        guest.tree.put([regular("boot/kernel", b""), regular("boot/kernel/x", b"")])
    with pytest.raises(ArchiveError, match=r'has "\.\." in it'):
        guest.tree.put([regular("boot/../etc/x", b"")])
    with pytest.raises(ArchiveError, match="the path of the directory that the archive is unpacked into"):
        guest.tree.put([regular(".", b"")])


def test_a_hard_link_across_is_a_copy(guest: Guest) -> None:
    guest.tree.put(
        [
            regular("etc/a", b"data" * 2000, mode=0o4755, uid=3, xattrs={b"user.x": b"y"}),
            hard_link("boot/b", "etc/a"),
            hard_link("var/v", "boot/b"),
            hard_link("boot/c", "etc/a"),
            hard_link("etc/d", "boot/c"),
            hard_link("var/w", "etc/d"),
        ]
    )
    for tree, first, second in ((guest.root, "/etc/a", "/etc/d"), (guest.boot, "/b", "/c"), (guest.var, "/v", "/w")):
        found = tree.stat(first)
        assert tree.read(first) == b"data" * 2000
        assert (found.st_ino, found.st_nlink) == (tree.stat(second).st_ino, 2)
        assert (found.st_mode, found.st_uid, found.st_mtime_ns) == (stat.S_IFREG | 0o4755, 3, MTIME)
        assert tree.attributes(first)["user.x"] == b"y"


@pytest.mark.parametrize(
    "between", [regular("boot/b", b"other"), symlink("boot/b", "x"), hard_link("boot/b", "boot/k")]
)
def test_a_copy_that_is_replaced_is_a_copy_no_more(guest: Guest, between: Entry) -> None:
    first = [regular("boot/k", b"k"), regular("etc/a", b"data"), hard_link("boot/b", "etc/a")]
    guest.tree.put([*first, between, hard_link("boot/c", "etc/a"), hard_link("boot/d", "boot/c")])
    assert guest.boot.read("/c") == b"data"
    assert (guest.boot.stat("/c").st_nlink, guest.root.stat("/etc/a").st_nlink) == (2, 1)


def test_a_file_that_is_replaced_has_no_copy_yet(guest: Guest) -> None:
    twice = [
        regular("etc/a", b"old"),
        hard_link("boot/b", "etc/a"),
        regular("etc/a", b"new"),
        hard_link("boot/c", "etc/a"),
    ]
    guest.tree.put(twice)
    assert (guest.boot.read("/b"), guest.boot.read("/c")) == (b"old", b"new")


def test_a_hard_link_to_what_is_not_there(guest: Guest) -> None:
    guest.root.write("/found", b"")
    for link, reason in (
        ("boot/hidden", "which does not exist"),
        ("boot", "to the directory"),
        ("none/x", "does not exist"),
    ):
        for path in ("etc/b", "boot/b"):
            with pytest.raises(ArchiveError, match=f"entry {path}: it is a hard link to .*{reason}|{reason}"):
                guest.tree.put([hard_link(path, link)])
    guest.tree.put([hard_link("boot/x", "found")])
    assert guest.boot.exists("/x")


def test_further_names_of_an_entry(guest: Guest) -> None:
    guest.tree.put([regular("etc/a", b"data", names=(b"boot/b", b"etc/c", b"boot/d"))])
    assert (guest.root.stat("/etc/a").st_nlink, guest.boot.stat("/b").st_nlink) == (2, 2)
    assert guest.boot.read("/d") == b"data"


def test_names_in_an_acl_are_those_of_the_root(guest: Guest) -> None:
    listed = regular("boot/listed", b"x", acls={b"system.posix_acl_access": NAMED_ACL})
    guest.tree.put(
        [listed, hard_link("var/copy", "boot/listed"), regular("etc/passwd", b"lisa:x:1234:100::/:/bin/sh\n")]
    )
    for tree, path in ((guest.boot, "/listed"), (guest.var, "/copy")):
        assert (1234).to_bytes(4, "little") in tree.attributes(path)["system.posix_acl_access"]


def test_a_full_one_is_named_with_the_entry(guest: Guest) -> None:
    wording = Wording("overlay", "copy", "copied")
    with pytest.raises(NoSpaceError, match=r"^overlay: entry boot/large: cannot be copied: "):
        guest.tree.put([regular("etc/small", b"1"), regular("boot/large", bytes(range(256)) * 40000)], wording=wording)
    assert guest.boot.list("/") == ["lost+found"]
    guest.tree.put([regular("var/large", b"1")])
    assert guest.var.read("/large") == b"1"


def test_a_loop_of_symlinks(guest: Guest) -> None:
    guest.root.symlink("/etc/one", "/var/two")
    guest.var.symlink("/two", "/etc/one")
    with pytest.raises(StorageError, match="more than 40 symlinks") as caught:
        guest.tree.put([regular("etc/one/x", b"")])
    assert caught.value.errno == errno.ELOOP
    guest.tree.put([folder("etc/one"), regular("etc/one/x", b"1")])
    assert guest.root.read("/etc/one/x") == b"1"


def facts(tree: ExtTree) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path, status in tree.walk():
        is_file, is_link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
        data = tree.read(path, limit=MIB) if is_file else tree.readlink(path) if is_link else b""
        numbers = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev)
        times = () if "missing" in path or path == "/lost+found" else (status.st_mtime_ns, status.st_atime_ns)
        found[path] = (*numbers, times, data, tree.attributes(path, follow_symlinks=False))
    return found


def test_it_comes_out_as_new_file_systems_do() -> None:
    """Compared with what fills new file systems, one of them mounted on a directory of the other."""

    def entries() -> Iterator[Entry]:
        yield folder("boot", 0o700)
        yield from everything()
        yield regular("boot/missing/kernel", b"k" * 5000, uid=70000)
        yield hard_link("boot/second", "etc/second")
        yield hard_link("third", "boot/second")
        yield symlink("boot/to", "../etc")
        yield regular("boot/to/through", b"there and back")
        yield regular("boot/listed", b"x", acls={b"system.posix_acl_access": NAMED_ACL})

    filled, put = ([MemoryDisk(8 * MIB), MemoryDisk(8 * MIB)] for _ in range(2))
    filling = Filling(*(NewExt(disk=disk) for disk in filled))
    filling.join("/boot")
    filling.add(entries())
    filling.complete()
    for disk in put:
        make_ext(disk, kind="ext4")
    with open_changed_tree(put[0]) as root, open_changed_tree(put[1]) as boot:
        root.make_directory("/boot")
        root.utime("/boot", atime_ns=0, mtime_ns=0)
        tree = JoinedTree(root)
        tree.join("/boot", boot)
        tree.put(entries())
    for ours, theirs in zip(put, filled, strict=True):
        expected, found = facts(open_ext_tree(theirs)), facts(open_ext_tree(ours))
        for both in (expected, found):
            both.pop("/boot", None)
        assert found == expected
