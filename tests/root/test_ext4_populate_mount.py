# SPDX-License-Identifier: MIT
"""The kernel judges file systems filled from archives: the tree is the packed one, and can be used and grown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.files.acl import decode
from pydiskimg.files.directory import DirectoryReader
from pydiskimg.files.entry import Entry
from pydiskimg.files.tar import extract, open_tar
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.images.open_disk import open_disk
from pydiskimg.linux.memfd import data_ranges
from pydiskimg.units import GIB, MIB
from tests.archive_trees import Node, odd_tree, picture, sparse_tree
from tests.fixtures.ext_files import sized
from tests.fixtures.made_entries import everything, filled_file, folder, regular
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root
TAR = ("--format=pax", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse")


@contextmanager
def seen(image: Path) -> Iterator[Path]:
    """Yield where the file system in a file is mounted, writable."""
    with (
        open_disk(image, writable=True) as disk,
        loop_device(disk.fd) as loop,
        mounted(loop.path, fs_type="ext4") as at,
    ):
        yield Path(at)


def tree_at(root: Path) -> dict[bytes, Node]:
    """Return what is below root, without /lost+found and what belongs to it."""
    return {path: node for path, node in picture(root).items() if path not in (b"", b"/lost+found")}


def odd(root: Path) -> None:
    odd_tree(root)
    sparse_tree(root / "sparse")
    os.mknod(root / "device", 0o020640, os.makedev(259, 70000))
    os.chown(root / "text", 4_000_000_000, 70_000)
    os.chmod(root / "text", 0o6755)
    for name, value in (("user.a", b"1"), ("user.b", b"2" * 900), ("trusted.c", b"\xff" * 70), ("security.d", b"")):
        os.setxattr(root / "text", name, value)
    os.setxattr(root / "symlink", "trusted.of-a-link", b"x", follow_symlinks=False)
    run("setfacl", "-m", "u:1234:rwx,g:77:r,m::rx", str(root / "big"))
    run("setfacl", "-d", "-m", "u:1234:rwx", str(root / "directory"))


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_the_tree_of_an_archive_and_of_a_directory(kind: str, tmp_path: Path, tool: Tool) -> None:
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    source.mkdir()
    odd(source)
    run(tool("tar"), *TAR, "-cf", tmp_path / "a.tar", "-C", source, ".")
    unpacked.mkdir()
    extract(str(tmp_path / "a.tar"), str(unpacked))
    with open_tar(tmp_path / "a.tar") as entries:
        filled_file(tmp_path / "from-tar", GIB, entries, kind=kind)
    filled_file(tmp_path / "from-directory", GIB, DirectoryReader(os.fsencode(source)).entries(), kind=kind)
    for image in (tmp_path / "from-tar", tmp_path / "from-directory"):
        run(tool("e2fsck"), "-fn", image)
        with seen(image) as root:
            assert tree_at(root) == tree_at(unpacked)
            sparse = root / "sparse/five-runs"
            fd = os.open(sparse, os.O_RDONLY)
            assert list(data_ranges(fd)) == [(index << 20, (index << 20) + 4096) for index in range(0, 9, 2)]
            os.close(fd)
            assert os.stat(root / "sparse/beyond-8-gib").st_blocks * 512 < 64 << 10
            assert decode(os.getxattr(root / "big", "system.posix_acl_access"))


def test_the_kernel_uses_what_was_made(tmp_path: Path, tool: Tool) -> None:
    image = tmp_path / "disk"
    names = [f"d/name-{number}-{'n' * (number % 90)}" for number in range(5000)]
    filled_file(image, 128 * MIB, [*everything(), folder("d"), *map(regular, names)], bytes_per_inode=4096)
    with seen(image) as root:
        assert len(os.listdir(root / "d")) == 5000
        for name in names[::3]:
            (root / name).unlink()
        for number in range(4000):
            (root / f"d/new-{number}").write_bytes(b"x" * (number % 5000))
        assert (root / names[1]).read_bytes() == b""
        (root / "owned").unlink()
        os.setxattr(root / "noted", "user.more", b"m" * 100)
        (root / "missing").rename(root / "d/moved")
    run(tool("e2fsck"), "-fn", image)
    sized(image, 600 * MIB)
    run(tool("e2fsck"), "-fy", image)  # resize2fs wants one since the last mount
    run(tool("resize2fs"), image)
    run(tool("e2fsck"), "-fy", image)
    run(tool("resize2fs"), "-M", image)
    run(tool("e2fsck"), "-fn", image)
    with seen(image) as root:
        assert len(os.listdir(root / "d")) == 5000 - len(names[::3]) + 4000 + 1
        assert (root / "d/moved/parents/of/file").read_bytes() == b"inside"


def test_a_large_file_of_ext3_is_whole(tmp_path: Path, tool: Tool) -> None:
    def pieces() -> Iterator[tuple[int, memoryview]]:
        for number in range(48):
            yield number * MIB, memoryview(bytes([number]) * MIB)

    def entries() -> Iterator[Entry]:
        yield regular("large")
        whole = regular("whole")
        whole.size, whole.contents = 48 * MIB, pieces()
        yield whole

    filled_file(tmp_path / "disk", 80 * MIB, entries(), kind="ext3", block_size=1024)
    run(tool("e2fsck"), "-fn", tmp_path / "disk")
    with seen(tmp_path / "disk") as root:
        data = (root / "whole").read_bytes()
    assert all(data[number * MIB : (number + 1) * MIB] == bytes([number]) * MIB for number in range(48))
