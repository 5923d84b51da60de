# SPDX-License-Identifier: MIT
"""Several ext file systems as one tree: where paths and symlinks lead, what is hidden, and where writes go."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import StorageError
from pydiskimg.files.tree import ExistingPathError, MissingPathError, OutsideTreeError
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.fs.ext4.map_reader import file_pieces
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.units import MIB
from tests.fixtures.made_entries import regular


class Joined:
    """A root with /etc and directories /var and /usr, over which other file systems lie."""

    def __init__(self, stack: ExitStack) -> None:
        self.root, self.var, self.log = (self._made(stack) for _ in range(3))
        for path in ("/etc", "/var", "/var/below"):
            self.root.make_directory(path)
        self.root.write("/etc/hostname", b"inst1\n")
        self.root.write("/var/hidden", b"")
        self.var.make_directory("/log")
        self.var.make_directory("/lib")
        self.var.write("/lib/state", b"of var")
        self.tree = JoinedTree(self.root)
        self.tree.join("/var", self.var)
        self.tree.join("/var/log", self.log)

    @staticmethod
    def _made(stack: ExitStack) -> ChangedTree:
        disk = MemoryDisk(8 * MIB)
        make_ext(disk, kind="ext2")
        return stack.enter_context(open_changed_tree(disk))


@pytest.fixture
def joined() -> Iterator[Joined]:
    with ExitStack() as stack:
        yield Joined(stack)


def test_each_path_is_read_where_it_lies(joined: Joined) -> None:
    tree = joined.tree
    assert tree.read("/var/lib/state") == b"of var"
    assert tree.read("/var/../etc/./hostname") == tree.read("/../etc/hostname") == b"inst1\n"
    assert tree.read("/var/log/../lib/state") == b"of var"
    assert not tree.exists("/var/hidden")
    assert sorted(tree.list("/var")) == ["lib", "log", "lost+found"]
    with pytest.raises(MissingPathError, match="memory, /hidden: does not exist"):
        tree.read("/var/hidden")
    with pytest.raises(ValueError, match="not absolute"):
        tree.read("etc/hostname")


@pytest.mark.parametrize("target", ["/var/lib", "../../var/lib", "/etc/again"])
def test_symlinks_lead_from_one_to_another(joined: Joined, target: str) -> None:
    joined.root.symlink("/etc/again", "../var/lib/../lib")
    joined.log.symlink("/link", target)
    tree = joined.tree
    assert tree.read("/var/log/link/state") == b"of var"
    assert stat.S_ISLNK(tree.stat("/var/log/link", follow_symlinks=False).st_mode)
    assert stat.S_ISDIR(tree.stat("/var/log/link").st_mode)
    tree.write("/var/log/link/new", b"1")
    assert joined.var.read("/lib/new") == b"1"


def test_a_symlink_to_what_is_missing_makes_it_there(joined: Joined) -> None:
    joined.root.symlink("/etc/dangling", "/var/log/made")
    assert not joined.tree.exists("/etc/dangling")
    joined.tree.write("/etc/dangling", b"2")
    assert joined.log.read("/made") == b"2"
    joined.tree.remove("/etc/dangling")
    assert not joined.root.exists("/etc/dangling")
    assert joined.log.exists("/made")


def test_changes_go_where_they_belong(joined: Joined) -> None:
    tree = joined.tree
    tree.make_directory("/var/log/a", mode=0o700)
    tree.symlink("/var/log/a/l", "/etc")
    tree.write_files("/var/log/a", [("f", b"3")])
    tree.replace("/var/log/a/f", b"4")
    assert joined.log.read("/a/f") == tree.read("/var/log/a/f") == b"4"
    assert stat.S_IMODE(joined.log.stat("/a").st_mode) == 0o700
    with pytest.raises(ExistingPathError):
        tree.make_directory("/var/log")
    with pytest.raises(StorageError) as caught:
        tree.remove("/var/log")
    assert caught.value.errno == errno.EBUSY


def test_devices_tell_file_systems_from_one_another(joined: Joined) -> None:
    devices = {joined.tree.stat(path).st_dev for path in ("/", "/var", "/var/log")}
    assert len(devices) == 3
    found = joined.tree.stat("/etc/hostname")
    assert found.st_dev == joined.tree.stat("/").st_dev
    assert found.st_mtime_ns == joined.root.stat("/etc/hostname").st_mtime_ns


def test_walking_enters_no_other(joined: Joined) -> None:
    names = [path for path, _ in joined.tree.walk("/")]
    assert names == ["/etc", "/etc/hostname", "/lost+found", "/var"]
    assert [path for path, _ in joined.tree.walk("/var/lib")] == ["/var/lib/state"]


@pytest.mark.parametrize(
    ("path", "number"),
    [("/etc/hostname", errno.ENOTDIR), ("/none", errno.ENOENT), ("/up", errno.ELOOP), ("/var/log", errno.EBUSY)],
)
def test_where_none_can_lie(joined: Joined, path: str, number: int) -> None:
    joined.root.symlink("/up", "..")
    with pytest.raises(StorageError, match="cannot be a mount point") as caught:
        joined.tree.join(path, joined.var)
    assert caught.value.errno == number


def test_symlinks_without_end(joined: Joined) -> None:
    joined.root.symlink("/etc/one", "/var/lib/other")
    joined.var.symlink("/lib/other", "/etc/one")
    assert not joined.tree.exists("/etc/one")
    with pytest.raises(OutsideTreeError, match="more than 40 symlinks"):
        joined.tree.read("/etc/one")


def test_symlinks_that_go_to_and_fro(joined: Joined) -> None:
    """40 symlinks of a block each would be searched for minutes where blocks are large."""
    joined.root.make_directory("/var/log")
    for number in range(39):
        end = f"etc/{number - 1}" if number else "etc/hostname"
        joined.root.symlink(f"/etc/{number}", "/" + "var/log/../../" * 70 + end)
    for tree in (joined.root, joined.tree):
        assert tree.read("/etc/8") == b"inst1\n"
        assert not tree.exists("/etc/38")
        with pytest.raises(OutsideTreeError, match="symlinks of more than 4096 names"):
            tree.read("/etc/38")


def spoil(disk: MemoryDisk, directory: str) -> None:
    """Overwrite a directory's first block with invalid bytes."""
    with open_ext_tree(disk) as tree:
        fs = tree.files.fs
        _, block, _ = next(file_pieces(fs, tree.inode(directory)))
    disk.write(block * fs.geometry.block_size, b"\xff" * fs.geometry.block_size)


def test_damage_is_told_of_the_file_system_that_has_it() -> None:
    """It lies in /boot's own, though each path begins at the root's."""
    disks = [MemoryDisk(8 * MIB, name=f"partition {number}") for number in (2, 1)]
    for disk in disks:
        make_ext(disk, kind="ext2")
    with open_changed_tree(disks[0]) as root, open_changed_tree(disks[1]) as boot:
        root.make_directory("/boot")
        boot.make_directory("/grub")
    spoil(disks[1], "/grub")
    with open_changed_tree(disks[0]) as root, open_changed_tree(disks[1]) as boot:
        tree = JoinedTree(root)
        tree.join("/boot", boot)
        calls: list[Callable[[], object]] = [
            lambda: tree.read("/boot/grub/grub.cfg"),
            lambda: tree.exists("/boot/grub/x"),
            lambda: tree.put([regular("boot/grub/x", b"")]),
        ]
        for call in calls:
            with pytest.raises(StorageError, match=r"^partition 1[,:].* the file system is damaged: ") as caught:
                call()
            assert caught.value.errno == errno.EUCLEAN


def test_a_path_is_as_long_as_linux_takes(joined: Joined) -> None:
    assert joined.tree.read("/./" * 1000 + "etc/hostname") == b"inst1\n"
    with pytest.raises(StorageError) as caught:
        joined.tree.read("/." * 2048 + "/etc/hostname")
    assert caught.value.errno == errno.ENAMETOOLONG
