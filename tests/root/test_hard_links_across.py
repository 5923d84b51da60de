# SPDX-License-Identifier: MIT
"""Hard links that would lead from one file system to another: copies with everything that belongs to the file."""

from __future__ import annotations

import grp
import os
import random
import stat
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError, MountPointError, NoSpaceError
from pydiskimg.files.copy import copy_directory
from pydiskimg.files.tar import extract
from tests.archive_trees import picture, sparse_file
from tests.fixtures.dumps import Dir, File, dump, restored
from tests.fixtures.privileged_files import make_capable
from tests.fixtures.programs import Tool, run
from tests.fixtures.tarballs import DIRECTORY, FILE, LINK, SYMLINK, Member, add

pytestmark = [pytest.mark.root, pytest.mark.oracle]
MIB = 1 << 20
EVERYTHING = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--format=pax", "--sparse")


@contextmanager
def mounted(tool: Tool, image: Path, point: Path, *, size: int) -> Iterator[None]:
    with image.open("wb") as file:
        file.truncate(size)
    run(tool("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal", image)
    run(tool("mount"), "-o", "loop", image, point)
    try:
        yield
    finally:
        run(tool("umount"), point)


@pytest.fixture
def target(tool: Tool, tmp_path: Path) -> Iterator[Path]:
    """A root of 32 MiB with a file system of 4 MiB in its /boot."""
    point = tmp_path / "target"
    point.mkdir()
    with ExitStack() as stack:
        stack.enter_context(mounted(tool, tmp_path / "root.img", point, size=32 * MIB))
        (point / "boot").mkdir()
        stack.enter_context(mounted(tool, tmp_path / "boot.img", point / "boot", size=4 * MIB))
        yield point


def pack(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            add(archive, member)
    return path


def inodes(root: Path, *names: str) -> list[int]:
    return [(root / name).lstat().st_ino for name in names]


@pytest.mark.parametrize("chained", [False, True])
def test_names_on_one_side_stay_links_of_each_other(target: Path, tmp_path: Path, chained: bool) -> None:
    """chained: each is a link to the one before, as few programs pack them; otherwise to the first, as tar does."""
    names = ["usr/a", "boot/b", "boot/c", "usr/d", "boot/sub/e", "usr/f"]
    links = [(name, LINK, names[index] if chained else names[0]) for index, name in enumerate(names[1:])]
    again = links[0]  # what is in its place is the same file already
    extract(pack(tmp_path / "a.tar", (names[0], FILE, b"contents"), *links, again), str(target))
    assert len(set(inodes(target, "usr/a", "usr/d", "usr/f"))) == 1
    assert len(set(inodes(target, "boot/b", "boot/c", "boot/sub/e"))) == 1
    for name in names:
        assert (target / name).read_text() == "contents"
        assert (target / name).stat().st_nlink == 3
    before = picture(target)
    extract(tmp_path / "a.tar", str(target))
    assert {path: node.digest for path, node in picture(target).items()} == {
        path: node.digest for path, node in before.items()
    }


@pytest.mark.parametrize("first", ["boot", "usr"])
def test_the_copy_has_everything_that_the_file_has(tool: Tool, target: Path, tmp_path: Path, first: str) -> None:
    tree = tmp_path / "tree"
    second = {"boot": "usr", "usr": "boot"}[first]
    for directory in (tree / first, tree / second, tree / "etc"):
        directory.mkdir(parents=True)
    (tree / "etc/group").write_text("adm:x:4242:\n")
    files = tree / first
    sparse_file(files / "sparse", MIB + 77, [(300_000, 5000)])
    make_capable(tool, files)
    (files / "set-id").write_text("set")
    os.chown(files / "set-id", 1000, 1001)
    (files / "set-id").chmod(0o6750)
    os.symlink("/etc/shadow", files / "symlink")
    os.chown(files / "symlink", 7, 8, follow_symlinks=False)
    os.setxattr(files / "symlink", "trusted.a", b"1", follow_symlinks=False)
    os.mkfifo(files / "fifo", 0o640)
    os.mknod(files / "null", stat.S_IFCHR | 0o604, os.makedev(1, 3))
    os.mknod(files / "disk", stat.S_IFBLK | 0o604, os.makedev(4095, 77))
    os.setxattr(files / "set-id", "user.a", b"value")
    os.setxattr(files / "set-id", "trusted.b", b"value")
    run(tool("setfacl"), "-m", "u:71000:rw,g:72000:r", files / "sparse")
    run(tool("setfacl"), "-m", "g:adm:rw", files / "null")
    (files / "by-name").write_text("ACL")
    run(tool("setfacl"), "-m", "g:adm:rw", files / "by-name")
    names = sorted(os.listdir(files))
    for index, name in enumerate(names):
        os.utime(files / name, ns=(5, 1_600_000_000_000_000_001 + index), follow_symlinks=False)
        os.link(files / name, tree / second / name, follow_symlinks=False)
    archive = tmp_path / "a.tar"
    run(tool("tar"), "-cf", archive, *EVERYTHING, "-C", tree, "etc", first, second)
    extract(archive, str(target))
    for side in (first, second):
        status = (target / side / "sparse").stat()
        assert status.st_atime_ns == 5, "reading it for the copy has changed it"
    ours, theirs = picture(target), picture(tree)
    # GNU tar 1.35 writes numbers into ACLs, too, where owners are numbers; an older one the group's name.
    by_name = b"group:adm:" in archive.read_bytes()
    group = (4242 if by_name else grp.getgrnam("adm").gr_gid).to_bytes(4, "little")
    for name in names:
        one, other = (ours[f"/{side}/{name}".encode()] for side in (first, second))
        source = theirs[f"/{first}/{name}".encode()]
        for node in (one, other):
            fields = ("mode", "uid", "gid", "size", "rdev", "mtime_ns", "link", "digest")
            assert [getattr(node, field) for field in fields] == [getattr(source, field) for field in fields], name
            assert node.links == 1
        assert one.xattrs == other.xattrs
        if name in ("by-name", "null"):
            assert group in dict(one.xattrs)["system.posix_acl_access"]
        else:
            assert one.xattrs == source.xattrs
    assert (target / second / "sparse").stat().st_blocks * 512 < MIB // 4


SECRET = "of the host"
ESCAPES: dict[str, list[Member]] = {
    "to a symlink out": [("usr/s", SYMLINK, "{outside}/secret"), ("boot/l", LINK, "usr/s")],
    "to a relative symlink out": [("usr/s", SYMLINK, "../../outside/secret"), ("boot/l", LINK, "usr/s")],
    "through a directory that leads out": [("usr/s", SYMLINK, "{outside}"), ("boot/l", LINK, "usr/s/secret")],
    "through a relative one": [("usr/s", SYMLINK, "../../outside"), ("boot/l", LINK, "usr/s/secret")],
    "by an absolute path": [("boot/l", LINK, "{outside}/secret")],
    "by dots": [("boot/l", LINK, "usr/../../outside/secret")],
    "by /proc": [("usr/s", SYMLINK, "/proc/self/root"), ("boot/l", LINK, "usr/s{outside}/secret")],
    "into a directory that leads out": [
        ("usr/f", FILE, b"x"),
        ("boot/s", SYMLINK, "{outside}"),
        ("boot/s/l", LINK, "usr/f"),
    ],
    "onto a symlink out": [("usr/f", FILE, b"x"), ("boot/l", SYMLINK, "{outside}/secret"), ("boot/l", LINK, "usr/f")],
    "to a file that becomes a symlink": [
        ("usr/f", FILE, b"x"),
        ("boot/b", LINK, "usr/f"),
        ("usr/f", SYMLINK, "{outside}/secret"),
        ("boot/l", LINK, "usr/f"),
        ("usr/l", LINK, "boot/b"),
    ],
    "to a directory that becomes a symlink": [
        ("usr/d/f", FILE, b"x"),
        ("boot/b", LINK, "usr/d/f"),
        ("usr/d2", SYMLINK, "{outside}"),
        ("usr/d2", LINK, "usr/d/f"),
        ("usr/l", LINK, "boot/b"),
    ],
}


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_of_the_host_comes_in_and_nothing_goes_out(name: str, target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    members = [
        (path, kind, what.format(outside=outside) if isinstance(what, str) else what)
        for path, kind, what in ESCAPES[name]
    ]
    before = picture(outside)
    with suppress(ArchiveError):  # some are refused, some land inside
        extract(pack(tmp_path / "a.tar", *members), str(target))
    for path in target.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            assert SECRET.encode() not in path.read_bytes(), path
    assert picture(outside) == before


def test_a_file_that_was_replaced_keeps_its_contents_under_its_other_names(target: Path, tmp_path: Path) -> None:
    archive = pack(
        tmp_path / "a.tar",
        ("usr/a", FILE, b"old"),
        ("boot/b", LINK, "usr/a"),
        ("usr/a", FILE, b"new"),
        ("usr/c", LINK, "boot/b"),
        ("boot/d", LINK, "usr/a"),
        ("boot/b", FILE, b"newest"),
        ("boot/e", LINK, "usr/c"),
    )
    extract(archive, str(target))
    found = {name: (target / name).read_text() for name in ("usr/a", "boot/b", "usr/c", "boot/d", "boot/e")}
    assert found == {"usr/a": "new", "boot/b": "newest", "usr/c": "old", "boot/d": "new", "boot/e": "old"}


def random_members(seed: int) -> list[Member]:
    """Files, symlinks and links to what came before, on both sides, some in the place of others."""
    source = random.Random(seed)
    names = [f"{side}/{name}" for side in ("usr", "boot", "boot/deep", "usr/deep") for name in "abc"]
    made: list[str] = []
    members: list[Member] = []
    for number in range(40):
        name = source.choice(names)
        kind = source.choice([FILE, SYMLINK, LINK, LINK, LINK]) if made else FILE
        if kind == LINK and source.choice(made) != name:
            members.append((name, LINK, source.choice(made)))
        else:
            kind = FILE if kind == LINK else kind
            members.append((name, kind, b"%d" % number if kind == FILE else str(number)))
        made.append(name)
    return members


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_order_contents_are_as_without_a_mount(target: Path, tmp_path: Path, seed: int) -> None:
    archive = pack(tmp_path / "a.tar", *random_members(seed))
    plain = tmp_path / "plain"
    plain.mkdir()
    extract(archive, str(plain))
    extract(archive, str(target))
    ours = {path: node for path, node in picture(target).items() if b"lost+found" not in path}
    theirs = picture(plain)
    assert ours.keys() == theirs.keys()
    for path, one in ours.items():
        other = theirs[path]
        if stat.S_ISDIR(one.mode):
            continue
        assert (one.mode, one.digest, one.link, one.mtime_ns) == (other.mode, other.digest, other.link, other.mtime_ns)
        assert one.links <= other.links


@pytest.mark.parametrize(("link", "reason"), [("usr/later", "which does not exist"), ("usr", "to the directory usr")])
def test_what_cannot_be_linked_cannot_be_copied(target: Path, tmp_path: Path, link: str, reason: str) -> None:
    archive = pack(tmp_path / "a.tar", ("usr", DIRECTORY, b""), ("boot/l", LINK, link), ("usr/later", FILE, b""))
    with pytest.raises(ArchiveError, match=f"a.tar: entry boot/l: .*{reason}"):
        extract(archive, str(target))


def test_a_copy_that_does_not_fit_is_named(target: Path, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", ("usr/a", FILE, os.urandom(6 * MIB)), ("boot/b", LINK, "usr/a"))
    with pytest.raises(NoSpaceError, match=r"a\.tar: entry boot/b: cannot write .*: No space left") as caught:
        extract(archive, str(target))
    assert caught.value.device == (target / "boot").stat().st_dev


@pytest.mark.parametrize("kind", [SYMLINK, FILE, LINK])
def test_a_mount_point_is_not_replaced(target: Path, tmp_path: Path, kind: bytes) -> None:
    archive = pack(tmp_path / "a.tar", ("usr/a", FILE, b""), ("boot", kind, "usr/a"))
    with pytest.raises(
        MountPointError, match=r"a\.tar: entry boot: it would replace a directory on which a file system is mounted"
    ):
        extract(archive, str(target))


def test_an_overlay_keeps_links_on_each_side(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "overlay"
    names = ["boot/b", "boot/c", "usr/a", "usr/d"]
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / names[0]).write_text("contents")
    os.setxattr(source / names[0], "user.a", b"1")
    for name in names[1:]:
        os.link(source / names[0], source / name)
    copy_directory(str(source), str(target))
    assert len(set(inodes(target, "boot/b", "boot/c"))) == len(set(inodes(target, "usr/a", "usr/d"))) == 1
    for name in names:
        assert ((target / name).read_text(), os.getxattr(target / name, "user.a")) == ("contents", b"1")


FS_IMMUTABLE_FL = 0x10


def test_a_dump_over_a_mount_point(tool: Tool, target: Path) -> None:
    """Names of one file, immutable, below and above the mount: two files of two names each, both immutable."""
    files: dict[int, File | Dir] = {
        2: Dir([(b"boot", 11), (b"usr", 12)]),
        11: Dir([(b"b", 13), (b"c", 13)]),
        12: Dir([(b"a", 13), (b"d", 13)]),
        13: File(data=b"contents", nlink=4, flags=FS_IMMUTABLE_FL),
    }
    done = restored(dump(files), target)
    assert (done.files, done.links, done.flags_left_out) == (1, 3, 0)
    assert len(set(inodes(target, "boot/b", "boot/c"))) == len(set(inodes(target, "usr/a", "usr/d"))) == 1
    for name in ("boot/b", "boot/c", "usr/a", "usr/d"):
        assert (target / name).read_text() == "contents"
        assert "i" in run(tool("lsattr"), target / name).split()[0]
    for name in ("boot/b", "usr/a"):
        run(tool("chattr"), "-i", target / name)
