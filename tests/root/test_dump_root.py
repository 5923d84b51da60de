# SPDX-License-Identifier: MIT
"""Dumps that dump(8) made, restored and compared with what was dumped, and with what restore(8) makes of them."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pydiskimg.errors import DiskImageError, InvalidImageError, NoSpaceError
from pydiskimg.files.dump import Restored, open_dump, restore_dump
from pydiskimg.linux.inodeflags import FS_APPEND_FL, FS_IMMUTABLE_FL, FS_NOATIME_FL, get_flags
from tests.archive_trees import Node, odd_tree, picture, sparse_file, sparse_tree
from tests.fixtures.limits import assert_sentence, limits
from tests.fixtures.privileged_files import make_capable, set_acls, set_attributes, set_owners
from tests.fixtures.programs import Tool, run
from tests.fixtures.synced import synced

pytestmark = [pytest.mark.root, pytest.mark.oracle]
MIB = 1 << 20

FILE_SYSTEMS = {
    "ext2": ("-t", "ext2", "-b", "1024"),
    "ext3": ("-t", "ext3", "-b", "1024", "-I", "128"),
    "ext4": ("-t", "ext4", "-b", "4096"),
    "ext4-1k": ("-t", "ext4", "-b", "1024"),
    "ext4-inline": ("-t", "ext4", "-b", "4096", "-O", "inline_data,^has_journal"),
    "ext4-newest": ("-t", "ext4", "-O", "metadata_csum,metadata_csum_seed,orphan_file,large_dir"),
}
DUMPS = {
    "plain": (),
    "-z9": ("-z9",),
    "-z1": ("-z1",),
    "-j": ("-j9",),
    "-b 64 -z9": ("-b", "64", "-z9"),
    "-b 32": ("-b", "32"),
}


@contextmanager
def attached(tool: Tool, image: Path) -> Iterator[str]:
    done = subprocess.run([tool("losetup"), "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    device = done.stdout.strip()
    try:
        yield device
    finally:
        run(tool("losetup"), "--detach", device)


@contextmanager
def file_system(tool: Tool, work: Path, name: str, *options: str, size: int = 96 * MIB) -> Iterator[tuple[str, Path]]:
    """A new file system on a loop device, mounted; yields device and mount point."""
    image, point = work / f"{name}.img", work / name
    with image.open("wb") as file:
        file.truncate(size)
    point.mkdir()
    run(tool("mke2fs"), "-q", "-F", "-N", "8192", *options, image)
    with attached(tool, image) as device:
        run(tool("mount"), "-o", "noatime", device, point)
        try:
            yield device, point
        finally:
            run(tool("umount"), point)


def dumped(tool: Tool, device: str, point: Path, path: Path, *options: str) -> Path:
    """dump(8) reads the device beside the file system mounted at point, which must have been written back."""
    synced(point)
    run(tool("dump"), "-0", "-q", *options, "-f", path, device)
    return path


def restored(path: Path, target: Path) -> Restored:
    fd = os.open(path, os.O_RDONLY)
    try:
        with open_dump(fd, str(path)) as reader:
            return restore_dump(reader, str(target))
    finally:
        os.close(fd)


def tree_with_everything(tool: Tool, root: Path) -> None:
    odd_tree(root)
    sparse_tree(root / "sparse")
    sparse_file(root / "sparse/beyond-4-gib", (5 << 30) + 77, [(3 << 30, 5000), (5 << 30, 77)])
    for number in range(900):  # a directory beyond the direct blocks, and indexed
        (root / f"directory/{number:03d}-{'n' * 60}").write_bytes(b"%d" % number)
    for size in (1, 59, 60, 61, 150, 1023, 1024, 1025, 12 * 1024, 12 * 1024 + 1, 512 * 1024, 512 * 1024 + 1):
        (root / f"size-{size}").write_bytes(random.Random(size).randbytes(size))
    for length in (59, 60, 61, 150, 1023):
        os.symlink("t" * length, root / f"link-of-{length}")
    nodes(root)
    set_attributes(
        root,
        ("node-null", "trusted.on-device", b"6"),
        ("big", "security.test", b"7\0"),
        ("empty", "user.long", b"x" * 700),
    )
    make_capable(tool, root)
    set_acls(tool, root, file="block", device="node-disk")
    set_owners(root, {"empty": (4 << 29, 70_000)})
    flags(tool, root)


def nodes(root: Path) -> None:
    for name, kind, device in (
        ("null", stat.S_IFCHR, (1, 3)),
        ("disk", stat.S_IFBLK, (8, 0)),
        ("large-numbers", stat.S_IFBLK, (4095, (1 << 20) - 1)),
        ("minor-300", stat.S_IFCHR, (10, 300)),
        ("zero", stat.S_IFCHR, (0, 0)),
    ):
        os.mknod(root / f"node-{name}", kind | 0o640, os.makedev(*device))
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        os.chdir(root)
        listener.bind("socket")
        os.chdir(before)


def flags(tool: Tool, root: Path) -> None:
    os.link(root / "block", root / "directory/immutable-too")
    run(tool("chattr"), "+i", root / "block")
    run(tool("chattr"), "+aA", root / "new\nline")
    run(tool("chattr"), "+i", root / "empty-directory")


def as_dumped(node: Node) -> Node:
    """A dump has the low 32 bits of the seconds."""
    seconds = struct.unpack("<i", struct.pack("<I", node.mtime_ns // 10**9 & 0xFFFFFFFF))[0]
    return replace(node, mtime_ns=seconds * 10**9)


def differences(target: Path, source: Path) -> list[str]:
    ours, theirs = picture(target), {path: as_dumped(node) for path, node in picture(source).items()}
    return [
        f"{path!r}: {ours.get(path)} is not {theirs.get(path)}"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]


def check_allocation(target: Path, source: Path) -> None:
    """Holes stay holes: a file has no more than a block for each of its runs above what it had."""
    for path in sorted((source / "sparse").iterdir()):
        had, has = path.stat().st_blocks, (target / "sparse" / path.name).stat().st_blocks
        assert has <= had + 64, path


@pytest.fixture(params=FILE_SYSTEMS)
def source(request: pytest.FixtureRequest, tool: Tool, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    with file_system(tool, tmp_path, "source", *FILE_SYSTEMS[request.param]) as (device, point):
        tree_with_everything(tool, point)
        yield device, point


def test_everything_comes_out_as_it_was(tool: Tool, tmp_path: Path, source: tuple[str, Path]) -> None:
    device, point = source
    path = dumped(tool, device, point, tmp_path / "a.dump", "-z9")
    with file_system(tool, tmp_path, "target", "-t", "ext4") as (_, target):
        before = os.umask(0o077)
        try:
            done = restored(path, target)
        finally:
            os.umask(before)
        assert differences(target, point) == []
        assert done.left_out == done.flags_left_out == 0
        check_allocation(target, point)
        check_flags(target)
        assert (target / "with-ns").stat().st_atime_ns == (point / "with-ns").stat().st_atime_ns // 10**9 * 10**9


def check_flags(target: Path) -> None:
    wanted = FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NOATIME_FL
    for name, expected in (
        ("block", FS_IMMUTABLE_FL),
        ("directory/immutable-too", FS_IMMUTABLE_FL),
        ("empty-directory", FS_IMMUTABLE_FL),
        ("new\nline", FS_APPEND_FL | FS_NOATIME_FL),
        ("text", 0),
    ):
        fd = os.open(target / name, os.O_RDONLY)
        try:
            assert get_flags(fd) & wanted == expected, name
        finally:
            os.close(fd)


@pytest.mark.parametrize("options", DUMPS)
def test_every_form_and_restore_agree(tool: Tool, tmp_path: Path, options: str) -> None:
    """restore(8) forgets large device numbers, times of symlinks, signs, and some attributes of directories.

    That of dump 0.4b49 sets owners after capabilities, which the kernel removes then.
    """
    with file_system(tool, tmp_path, "source", "-t", "ext4", size=80 * MIB) as (device, point):
        tree_with_everything(tool, point)
        path = dumped(tool, device, point, tmp_path / "a.dump", *DUMPS[options])
        with file_system(tool, tmp_path, "ours", "-t", "ext4", size=80 * MIB) as (_, ours):
            restored(path, ours)
            assert differences(ours, point) == []
            if options in ("plain", "-z9"):
                with file_system(tool, tmp_path, "theirs", "-t", "ext4", size=80 * MIB) as (_, theirs):
                    run(tool("restore"), "-r", "-f", path, cwd=theirs)
                    compare_with_restore(ours, theirs)


def compare_with_restore(ours: Path, theirs: Path) -> None:
    left, right = picture(ours), picture(theirs)
    del right[b"/restoresymtable"]
    assert left.keys() == right.keys()
    for path, node in left.items():
        other = right[path]
        if stat.S_ISLNK(node.mode) or node.mtime_ns < 0 or not path:  # its own file went into the root
            other = replace(other, mtime_ns=node.mtime_ns)
        if node.rdev != other.rdev:
            other = replace(other, rdev=node.rdev)
        if stat.S_ISDIR(node.mode):
            other = replace(other, xattrs=node.xattrs)
        if path == b"/capable" and not other.xattrs:
            other = replace(other, xattrs=node.xattrs)
        assert node == other, path


def test_unwritten_and_beyond_the_end(tool: Tool, tmp_path: Path) -> None:
    """Blocks beyond a file's end (fallocate -n) are in the dump, and are not made part of the file."""
    with file_system(tool, tmp_path, "source", "-t", "ext4") as (device, point):
        (point / "kept").write_bytes(b"data" * 1000)
        run(tool("fallocate"), "-n", "-l", str(3 * MIB), point / "kept")
        (point / "after").write_bytes(b"after")
        path = dumped(tool, device, point, tmp_path / "a.dump")
        target = tmp_path / "target"
        target.mkdir()
        restored(path, target)
        assert (target / "kept").read_bytes() == b"data" * 1000
        assert (target / "after").read_bytes() == b"after"


def test_a_directory_alone(tool: Tool, tmp_path: Path) -> None:
    """Names that were excluded are counted, not missed."""
    with file_system(tool, tmp_path, "source", "-t", "ext4") as (device, point):
        for name in ("kept", "not-dumped"):
            (point / name).write_text(name)
        run(tool("chattr"), "+d", point / "not-dumped")
        path = dumped(tool, device, point, tmp_path / "a.dump", "-h", "0")
        target = tmp_path / "target"
        target.mkdir()
        done = restored(path, target)
        assert sorted(os.listdir(target)) == ["kept", "lost+found"]
        assert done.files == 1


def test_a_level_above_0(tool: Tool, tmp_path: Path) -> None:
    with file_system(tool, tmp_path, "source", "-t", "ext4") as (device, point):
        synced(point)
        path = tmp_path / "a.dump"
        run(tool("dump"), "-1", "-q", "-T", "Thu Jan  1 01:00:00 2004", "-f", path, device)
    with pytest.raises(DiskImageError, match="is a dump of level 1, which contains only changes"):
        restored(path, tmp_path)


def test_several_volumes(tool: Tool, tmp_path: Path) -> None:
    with file_system(tool, tmp_path, "source", "-t", "ext4") as (device, point):
        (point / "big").write_bytes(random.Random(1).randbytes(3 * MIB))
        synced(point)
        run(tool("dump"), "-0", "-q", "-B", "1000", "-M", "-f", tmp_path / "v", device)
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(InvalidImageError, match=r"is truncated, or continues on another volume|by its map"):
        restored(tmp_path / "v001", target)
    with pytest.raises(DiskImageError, match="is volume 2 of a dump; dumps of several volumes are not read"):
        restored(tmp_path / "v002", target)


def test_lzo_is_refused_by_name(tool: Tool, tmp_path: Path) -> None:
    with file_system(tool, tmp_path, "source", "-t", "ext4") as (device, point):
        (point / "zeros").write_bytes(bytes(MIB))
        path = dumped(tool, device, point, tmp_path / "a.dump", "-y")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(DiskImageError, match="is compressed with LZO, which is not read here"):
        restored(path, target)


def test_a_full_disk(tool: Tool, tmp_path: Path) -> None:
    with file_system(tool, tmp_path, "source", "-t", "ext4") as (device, point):
        for number in range(5):
            (point / f"big-{number}").write_bytes(random.Random(number).randbytes(4 * MIB))
        path = dumped(tool, device, point, tmp_path / "a.dump", "-z1")
    with (
        file_system(tool, tmp_path, "target", "-t", "ext4", size=16 * MIB) as (_, target),
        pytest.raises(NoSpaceError, match=r"a\.dump: /big-\d: cannot write .*: No space left on device") as caught,
    ):
        restored(path, target)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("options", ["plain", "-z9", "-j"])
def test_damaged_dumps(tool: Tool, tmp_path: Path, options: str) -> None:
    """A byte changed: an error, or the same files by number; of a compressed dump always an error, or nothing lost."""
    with file_system(tool, tmp_path, "source", "-t", "ext4", "-b", "1024", size=16 * MIB) as (device, point):
        (point / "a/b").mkdir(parents=True)
        for number in range(60):
            (point / f"a/{number}").write_bytes(random.Random(number).randbytes(37 * number))
        os.link(point / "a/1", point / "a/b/1")
        os.setxattr(point / "a/2", "user.x", b"y" * 300)
        expected = picture(point)
        path = dumped(tool, device, point, tmp_path / "a.dump", *DUMPS[options])
    original = path.read_bytes()
    rng = random.Random(options)
    refused = 0
    for number in range(120):
        changed = bytearray(original)
        if number % 4 == 0:
            del changed[rng.randrange(len(changed)) :]
        else:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        target = tmp_path / f"target-{number}"
        target.mkdir()
        with limits():
            try:
                restored(path, target)
            except DiskImageError as error:
                assert_sentence(str(error))
                refused += 1
                continue
        found = picture(target)
        if options == "plain":
            assert len(found) == len(expected)
        else:
            assert {name: node.digest for name, node in found.items()} == {
                name: node.digest for name, node in expected.items()
            }
    assert refused >= (30 if options == "plain" else 60)


RESTORE_EACH = """
import sys
from pathlib import Path
from tests.fixtures.limits import peak_memory, reset_peak_memory
from tests.root.test_dump_root import restored
few, many, target = map(Path, sys.argv[1:])
for number, path in enumerate((few, few, many)):  # the first time it is the imports and buffers that grow
    before = reset_peak_memory()
    restored(path, target / str(number))
    print(peak_memory() - before)
"""


def test_memory_does_not_grow_with_the_files(tool: Tool, tmp_path: Path) -> None:
    """What is kept of a file is its name and number, about 1 KiB; each has 12,000 bytes."""
    with file_system(tool, tmp_path, "source", "-t", "ext4", "-N", "12000", size=180 * MIB) as (device, point):
        for directory in range(10):
            (point / f"{directory}").mkdir()
            for number in range(1000):
                (point / f"{directory}/file-with-a-name-{number}").write_bytes(b"x" * 12000)
            if not directory:
                few = dumped(tool, device, point, tmp_path / "few.dump", "-z1")
        many = dumped(tool, device, point, tmp_path / "many.dump", "-z1")
    with file_system(tool, tmp_path, "target", "-t", "ext4", "-N", "14000", size=220 * MIB) as (_, target):
        for name in "012":
            (target / name).mkdir()
        root = Path(__file__).resolve().parent.parent.parent
        command = [sys.executable, "-c", RESTORE_EACH, *map(str, (few, many, target))]
        done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
        assert len(list((target / "2").rglob("file-with-a-name-*"))) == 10000
    _, growth, more = map(int, done.stdout.split())
    assert (more - growth) / 9000 < 7000, "bytes a file"
