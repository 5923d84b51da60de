# SPDX-License-Identifier: MIT
"""One stream of entries in two new file systems, one of them mounted on a directory of the other, as /boot is."""

from __future__ import annotations

import errno
import random
import stat
from collections.abc import Iterable
from typing import Any

import pytest

from pydiskimg import NewExt, populate_joined
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import ArchiveError, FileSystemError, MountPointError, NoSpaceError
from pydiskimg.files.acl import AclEntry, decode
from pydiskimg.files.entry import Entry
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4.populate.filling import Filling
from pydiskimg.fs.ext4.populate.populate import Populated
from pydiskimg.fs.ext4.tree import ExtTree, open_ext_tree
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB
from tests.fixtures.made_entries import (
    FIXED,
    NAMED_ACL,
    entry,
    everything,
    filled,
    folder,
    hard_link,
    regular,
    sparse,
    symlink,
)

SIZE = 16 * MIB


class Joined:
    """Two file systems on one disk in memory, and what populate_joined() says of them."""

    def __init__(self, entries: Iterable[Entry], *, root: Any = None, boot: Any = None, **options: Any) -> None:
        self.disk = MemoryDisk(2 * SIZE)
        self.regions = Region(self.disk, 0, SIZE, name="root disk"), Region(self.disk, SIZE, SIZE, name="boot disk")
        first, second = self.regions
        self.made: Populated = populate_joined(
            NewExt(disk=first, **FIXED, **(root or {})),
            NewExt(disk=second, **FIXED, **(boot or {})),
            entries,
            **options,
        )

    def trees(self) -> tuple[ExtTree, ExtTree]:
        return open_ext_tree(self.regions[0]), open_ext_tree(self.regions[1])


def test_what_lies_below_the_mount_point_goes_into_the_inner_file_system() -> None:
    joined = Joined(
        [
            folder("boot", 0o700, uid=7, xattrs={b"user.note": b"1"}),
            regular("boot/vmlinuz", b"kernel"),
            regular("boot/grub/grub.cfg", b"menu"),
            folder("usr/lib/kernel"),
            symlink("usr/lib/kernel/images", "/boot/grub"),
            regular("usr/lib/kernel/images/font", b"below a symlink that leads there"),
            symlink("boot/system", "../usr/lib"),
            regular("boot/system/inside", b"and back"),
            regular("etc/fstab", b"x"),
        ]
    )
    root, boot = joined.trees()
    assert root.list("/") == ["boot", "etc", "lost+found", "usr"]
    assert boot.list("/") == ["grub", "lost+found", "system", "vmlinuz"]
    assert boot.read("/grub/font") == b"below a symlink that leads there"
    assert root.read("/usr/lib/inside") == b"and back"
    point, top = root.stat("/boot"), boot.stat("/")
    assert (stat.S_IMODE(point.st_mode), point.st_uid, point.st_nlink, root.list("/boot")) == (0o755, 0, 2, [])
    assert (stat.S_IMODE(top.st_mode), top.st_uid, top.st_nlink) == (0o700, 7, 4)
    assert boot.attributes("/") == {"user.note": b"1"}
    assert (joined.made.entries, joined.made.bytes) == (9, 6 + 4 + 32 + 8 + 1)
    assert joined.made.inside is not None
    assert (joined.made.file_system.size, joined.made.inside.size) == (SIZE, SIZE)


def test_the_inner_one_is_what_it_would_be_alone() -> None:
    """So all that tests of one file system say holds for two; the inner one's inodes have other numbers meanwhile."""
    lists = regular("etc/passwd", b"lisa:x:1234:100::/:/bin/sh\n")
    joined = Joined([lists, *(_below(one, b"boot/") for one in everything())])
    assert joined.disk.data[SIZE:] == filled(everything(), size=SIZE).data


def _below(one: Entry, prefix: bytes) -> Entry:
    """Return an entry with its paths below another directory."""
    one.path = prefix + one.path
    if one.is_hard_link:
        one.link = prefix + one.link
    return one


def test_a_hard_link_to_the_other_file_system_becomes_a_copy_and_further_ones_links_of_it() -> None:
    data = random.Random(1).randbytes(5000)
    attributes = {b"user.note": b"n" * 300, b"security.capability": bytes(20)}
    mode = {"mode": 0o4755, "uid": 70000, "gid": 5, "flags": 0x80}
    joined = Joined(
        [
            sparse("usr/a", 300_000, [(0, data), (200_000, data)], xattrs=attributes, **mode),
            hard_link("boot/b", "usr/a"),
            hard_link("boot/c", "usr/a"),
            hard_link("usr/d", "boot/b"),
        ]
    )
    root, boot = joined.trees()
    first, copy = root.stat("/usr/a"), boot.stat("/b")
    assert root.stat("/usr/d").st_ino == first.st_ino
    assert boot.stat("/c").st_ino == copy.st_ino
    assert (first.st_nlink, copy.st_nlink) == (2, 2)
    for name in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_atime_ns", "st_blocks"):
        assert getattr(first, name) == getattr(copy, name)
    assert boot.read("/b") == root.read("/usr/a")
    assert (
        boot.attributes("/b")
        == root.attributes("/usr/a")
        == {
            "user.note": b"n" * 300,
            "security.capability": bytes(20),
        }
    )
    assert boot.inode("/b").flags == root.inode("/usr/a").flags


@pytest.mark.parametrize(
    "one",
    [
        symlink("boot/x", "y"),
        symlink("boot/x", "long/" * 100),
        entry("boot/x", stat.S_IFBLK, 0o660, device=(259, 70000)),
        entry("boot/x", stat.S_IFIFO, 0o600),
    ],
    ids=["short symlink", "long symlink", "device", "fifo"],
)
def test_what_is_not_a_regular_file_is_copied_too(one: Entry) -> None:
    root, boot = Joined([one, hard_link("x", "boot/x")]).trees()
    copy, first = root.stat("/x", follow_symlinks=False), boot.stat("/x", follow_symlinks=False)
    assert (copy.st_mode, copy.st_rdev, copy.st_size) == (first.st_mode, first.st_rdev, first.st_size)
    if one.link:
        assert root.readlink("/x") == boot.readlink("/x") == one.link.decode()


def test_an_acl_with_names_is_copied_with_the_numbers_of_the_systems_own_lists() -> None:
    root, boot = Joined(
        [
            regular("listed", b"x", acls={b"system.posix_acl_access": NAMED_ACL}),
            hard_link("boot/listed", "listed"),
            regular("etc/passwd", b"lisa:x:1234:100::/:/bin/sh\n"),
        ]
    ).trees()
    for tree, path in ((root, "/listed"), (boot, "/listed")):
        assert AclEntry(b"user", 1234, 6) in decode(tree.attributes(path)["system.posix_acl_access"])
        assert stat.S_IMODE(tree.stat(path).st_mode) == 0o764


def test_a_copy_whose_original_was_replaced_stays_and_is_not_linked_to_what_came_after() -> None:
    root, boot = Joined(
        [
            regular("a", b"old"),
            hard_link("boot/b", "a"),
            regular("a", b"new"),
            hard_link("boot/c", "a"),
            regular("boot/d", b"third"),
            hard_link("e", "boot/d"),
            regular("boot/d", b"fourth"),
            hard_link("f", "boot/d"),
        ]
    ).trees()
    assert [boot.read(path) for path in ("/b", "/c", "/d")] == [b"old", b"new", b"fourth"]
    assert [root.read(path) for path in ("/a", "/e", "/f")] == [b"new", b"third", b"fourth"]
    assert {tree.stat(path).st_nlink for tree, path in ((boot, "/b"), (boot, "/c"), (root, "/e"), (root, "/f"))} == {1}


def test_what_would_take_the_mount_points_place_is_refused() -> None:
    for one in (symlink("boot", "usr/boot"), regular("boot", b"x")):
        with pytest.raises(
            MountPointError, match="entry boot: it would replace a directory on which a file system is mounted"
        ):
            Joined([regular("boot/x"), one])
    with pytest.raises(
        ArchiveError, match=r"entry boot/lost\+found: it would replace the directory lost\+found, which every ext"
    ):
        Joined([regular("boot/lost+found")])


def test_the_mount_point_is_taken_once_where_no_name_may_come_twice() -> None:
    Joined([folder("."), folder("boot"), folder("boot/lost+found"), regular("boot/x")], replacing=False)
    with pytest.raises(ArchiveError, match="entry boot: duplicate name"):
        Joined([folder("boot"), folder("boot")], replacing=False)


def test_the_disk_that_is_full_is_named_with_what_to_do() -> None:
    large = random.Random(2).randbytes(17 * MIB)
    wording = Wording("it", hints={"boot disk": "make it larger"})
    for path, found in (
        (
            "boot/large",
            "it: entry boot/large: cannot be unpacked to boot disk: none of .* blocks is free; make it larger",
        ),
        ("large", "it: entry large: cannot be unpacked to root disk: none of .* blocks is free; use a larger disk"),
    ):
        with pytest.raises(NoSpaceError, match=found) as raised:
            Joined([regular(path, large)], wording=wording)
        assert raised.value.errno == errno.ENOSPC


def test_a_copy_that_the_other_file_system_cannot_hold_is_refused_as_if_it_had_come() -> None:
    """Their block sizes differ: an attribute or target of 3000 bytes fits into one of them only."""
    options = {"root": {"block_size": 4096}, "boot": {"block_size": 1024}}
    with pytest.raises(ArchiveError, match=r"the attribute user\.note of 3000 bytes does not fit"):
        Joined([regular("a", xattrs={b"user.note": bytes(3000)}), hard_link("boot/a", "a")], **options)
    with pytest.raises(OSError, match="entry boot/a: has a target of 3000 bytes, and a symlink here at most 1023"):
        Joined([symlink("a", "x" * 3000), hard_link("boot/a", "a")], **options)
    root, boot = Joined([regular("a", b"x" * 9000), hard_link("boot/a", "a")], **options).trees()
    assert root.read("/a") == boot.read("/a")


def test_neither_is_a_file_system_after_an_error() -> None:
    disk = MemoryDisk(2 * SIZE)
    first, second = Region(disk, 0, SIZE, name="r"), Region(disk, SIZE, SIZE, name="b")
    populate_joined(NewExt(disk=first), NewExt(disk=second), [regular("a")])
    with pytest.raises(ArchiveError, match="which does not exist"):
        populate_joined(NewExt(disk=first), NewExt(disk=second), [regular("boot/x"), hard_link("b", "c")])
    for region in (first, second):
        with pytest.raises(FileSystemError):
            open_ext_tree(region)


def test_what_was_filled_so_far_can_be_read_across_both() -> None:
    disks = MemoryDisk(SIZE), MemoryDisk(SIZE)
    filling = Filling(NewExt(disk=disks[0], block_size=4096), NewExt(disk=disks[1], block_size=1024))
    filling.join("/boot")
    tree = filling.tree
    assert (tree.exists("/etc"), tree.list("/")) == (False, ["boot", "lost+found"])
    target = "../boot/" + "x" * 80
    long, mine = {b"user.note": b"n" * 300}, b"contents" * 1000
    filling.add([regular("boot/" + "x" * 80, mine, xattrs=long), symlink("etc/link", target)])
    assert tree.read("/etc/link") == mine
    assert tree.attributes("/etc/link") == {"user.note": b"n" * 300}
    assert tree.readlink("/etc/link") == target
    assert (tree.stat("/etc").st_dev, tree.stat("/etc/link").st_dev, tree.stat("/boot").st_dev) == (0, 1, 1)
    filling.add([regular("boot/" + "x" * 80, b"new"), folder("boot/grub")])
    assert (tree.read("/etc/link"), tree.stat("/etc/link").st_size) == (b"new", 3)
    assert [path for path, _ in tree.walk("/")] == [
        *("/boot", "/boot/grub", "/boot/lost+found", "/boot/" + "x" * 80, "/etc", "/etc/link", "/lost+found")
    ]
    filling.complete()
    assert open_ext_tree(disks[1]).read("/" + "x" * 80) == b"new"


def test_a_symlink_to_a_directory_is_kept_where_that_is_asked_for() -> None:
    disk = MemoryDisk(SIZE)
    filling = Filling(NewExt(disk=disk))
    filling.add([folder("usr/lib", 0o711), symlink("lib", "usr/lib"), symlink("gone", "nowhere")])
    added = filling.add([folder("lib"), regular("lib/x", b"1"), folder("gone")], keep_links=True)
    assert (added.entries, added.bytes) == (3, 1)
    filling.complete()
    with open_ext_tree(disk) as tree:
        assert tree.readlink("/lib") == "usr/lib"
        assert tree.read("/usr/lib/x") == b"1"
        assert [stat.S_IMODE(tree.stat(path).st_mode) for path in ("/usr/lib", "/gone")] == [0o711, 0o755]


def test_each_of_two_is_filled_by_itself_before_one_lies_over_the_other() -> None:
    """As dumps are: a root's dump has the directory that is the mount point, and what is hidden below it."""
    disks = MemoryDisk(SIZE), MemoryDisk(SIZE)
    filling = Filling(NewExt(disk=disks[0]), NewExt(disk=disks[1]))
    filling.add([folder("."), regular("./kernel", b"k"), hard_link("x", "kernel")], to_second=True, replacing=False)
    filling.add([folder("boot", 0o700), regular("boot/hidden", b"h")], replacing=False)
    filling.join("/boot")
    filling.add([regular("boot/late", b"l")])
    assert [filling.tree.list(path) for path in ("/", "/boot")] == [
        ["boot", "lost+found"],
        ["kernel", "late", "lost+found", "x"],
    ]
    filling.complete()
    root, boot = map(open_ext_tree, disks)
    assert (root.list("/boot"), stat.S_IMODE(root.stat("/boot").st_mode)) == (["hidden"], 0o700)
    assert boot.list("/") == ["kernel", "late", "lost+found", "x"]
    assert boot.stat("/x").st_nlink == 2


@pytest.mark.parametrize("entry_of_boot", [regular("boot"), symlink("boot", "/"), symlink("boot", "gone")])
def test_what_is_not_a_directory_cannot_be_a_mount_point(entry_of_boot: Entry) -> None:
    filling = Filling(NewExt(disk=MemoryDisk(SIZE)), NewExt(disk=MemoryDisk(SIZE)))
    filling.add([entry_of_boot])
    with pytest.raises(FileSystemError, match="memory, /boot: cannot be a mount point: it does not lead"):
        filling.join("/boot")


def random_entries(seed: int) -> list[Entry]:
    """Files, symlinks and links to what came before, on both sides, some in the place of others."""
    source = random.Random(seed)
    names = [f"{side}/{name}" for side in ("usr", "boot", "boot/deep", "usr/deep") for name in "abc"]
    made: list[str] = []
    entries: list[Entry] = []
    for number in range(60):
        name, kind = source.choice(names), source.choice("fslll")
        first = source.choice(made) if made else name
        if kind == "l" and first != name:
            entries.append(hard_link(name, first))
        elif kind == "s":
            entries.append(symlink(name, f"{number}"))
        else:
            entries.append(regular(name, b"%d" % number * number))
        made.append(name)
    return entries


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_contents_are_as_in_one_file_system(seed: int) -> None:
    root, boot = Joined(random_entries(seed)).trees()
    alone = open_ext_tree(filled(random_entries(seed), size=SIZE))
    found = {path for path, _ in alone.walk("/") if "lost+found" not in path}
    both = {path for path, _ in root.walk("/")} | {f"/boot{path}" for path, _ in boot.walk("/")}
    assert {path for path in both if "lost+found" not in path} == found
    for path in found:
        tree, inside = (boot, path[5:] or "/") if path.startswith("/boot") else (root, path)
        one, other = tree.stat(inside, follow_symlinks=False), alone.stat(path, follow_symlinks=False)
        if stat.S_ISDIR(one.st_mode):
            continue
        assert (one.st_mode, one.st_size, one.st_mtime_ns) == (other.st_mode, other.st_size, other.st_mtime_ns)
        assert 0 < one.st_nlink <= other.st_nlink
        if stat.S_ISREG(one.st_mode):
            assert tree.read(inside) == alone.read(path)
        else:
            assert tree.readlink(inside) == alone.readlink(path)
