# SPDX-License-Identifier: MIT
"""The kernel beside us: file systems that it filled are changed by us and used by it again, and both make the same."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.images.open_disk import open_disk
from pydiskimg.units import MIB
from tests.fixtures.ext_contents import Found, contents_of
from tests.fixtures.ext_files import made_ext
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.programs import Tool, run
from tests.fixtures.synced import synced

pytestmark = pytest.mark.root

SIZE = 24 * MIB
FEATURES = ("-t ext4 -b 1024", "-t ext4 -b 4096 -O inline_data,orphan_file", "-t ext4 -O bigalloc -C 16384", "-t ext2")


def fill(root: Path) -> None:
    """Leave what a used file system has: removed files, holes, unwritten blocks, large directories, attributes."""
    rng = random.Random(1)
    for number in range(600):
        directory = root / f"d{number % 3}"
        directory.mkdir(exist_ok=True)
        (directory / f"a file of the kernel, number {number}").write_bytes(rng.randbytes(rng.choice((0, 50, 3000))))
    for number in range(0, 600, 2):
        (root / f"d{number % 3}" / f"a file of the kernel, number {number}").unlink()
    with (root / "sparse").open("wb") as file:
        file.truncate(3 * MIB)
        os.pwrite(file.fileno(), b"middle", MIB)
        os.pwrite(file.fileno(), b"end", 2 * MIB)
    (root / "two names").write_bytes(b"both")
    os.link(root / "two names", root / "the other name")
    for number in range(2):  # the kernel has them share a block
        (root / f"shared{number}").write_bytes(b"shared")
        os.setxattr(root / f"shared{number}", "user.shared", b"x" * 500)


def change(tree: Any) -> None:
    """Do what the Tree of a mounted file system and ours have in common."""
    rng = random.Random(2)
    tree.write("/d0/new", rng.randbytes(100_000), mode=0o4711, attributes={"user.new": b"new"})
    tree.write("/two names", b"one alone")
    tree.replace("/sparse", rng.randbytes(50_000))
    tree.make_directory("/made", mode=0o2750)
    tree.make_directory("/made/below")
    tree.write_files("/made", [(f"one of many {number}", b"many" * number) for number in range(100)])
    tree.write("/made/inherits", b"its group", mode=0o600)
    tree.symlink("/made/short", "/d0/new")
    tree.symlink("/made/long", "/d0/" + "x" * 200)
    tree.write("/made/short", b"through a symlink")
    tree.write("/shared1", b"shared no more")
    for number in range(1, 600, 6):
        tree.remove(f"/d{number % 3}/a file of the kernel, number {number}")
    tree.remove("/shared0")


def changed_by_us(path: Path) -> None:
    with open_disk(path, writable=True) as disk, open_changed_tree(disk) as tree:
        change(tree)


def changed_by_the_kernel(path: Path) -> None:
    with (
        loop(path, 0, SIZE) as device,
        mounted_at(device, path.parent / "point") as point,
        open_mounted_tree(point) as tree,
    ):
        change(tree)


def copy_with(path: Path, name: str, change: Callable[[Path], None]) -> Path:
    copy = path.with_name(name)
    run("cp", "--sparse=always", path, copy)
    change(copy)
    return copy


def found_in(path: Path) -> dict[str, Found]:
    with open_disk(path) as disk:
        return contents_of(disk)


@pytest.mark.parametrize("options", FEATURES)
def test_we_and_the_kernel_make_the_same(tool: Tool, tmp_path: Path, options: str) -> None:
    path = made_ext(tool, tmp_path / "image", options, SIZE)
    with loop(path, 0, SIZE) as device, mounted_at(device, tmp_path / "point") as point:
        fill(point)
        os.chown(point, 0, 50)
        os.chmod(point, 0o2755)
    ours = copy_with(path, "ours", changed_by_us)
    run(tool("e2fsck"), "-fn", ours)
    theirs = copy_with(path, "theirs", changed_by_the_kernel)
    assert found_in(ours) == found_in(theirs)
    with loop(ours, 0, SIZE) as device, mounted_at(device, tmp_path / "point") as point:
        for number in range(300):
            (point / "made" / f"of the kernel again {number}").write_bytes(b"again")
        run("rm", "-r", point / "d1", point / "made")
    run(tool("e2fsck"), "-fn", ours)


@pytest.mark.parametrize("options", ["-t ext4 -b 1024", "-t ext4 -b 1024 -O orphan_file"])
def test_a_log_and_orphans_that_the_kernel_left(tool: Tool, tmp_path: Path, options: str) -> None:
    """A file that was removed while it was open is given back before the first change, as by the next mount."""
    path = made_ext(tool, tmp_path / "image", options, SIZE)
    with loop(path, 0, SIZE) as device, mounted_at(device, tmp_path / "point") as point:
        (point / "kept").write_bytes(b"kept")
        synced(point)
        (point / "fresh").mkdir()
        (point / "kept").rename(point / "fresh/renamed")
        crashed = tmp_path / "crashed"
        with (point / "open").open("wb") as file:
            file.write(bytes(100_000))
            os.fsync(file.fileno())
            (point / "open").unlink()
            directory = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(directory)
            os.close(directory)
            run("cp", "--sparse=always", device, crashed)
    with open_disk(crashed, writable=True) as disk, open_changed_tree(disk) as tree:
        assert tree.read("/fresh/renamed") == b"kept"
        tree.write("/fresh/ours", b"ours")
    run(tool("e2fsck"), "-fn", crashed)
    assert set(found_in(crashed)) == {"/lost+found", "/fresh", "/fresh/renamed", "/fresh/ours"}


def test_values_in_inodes_of_their_own(tool: Tool, tmp_path: Path) -> None:
    """The kernel has files share a value; we take it from two, make others, and the kernel reads and removes them."""
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024 -O ea_inode", SIZE)
    rng = random.Random(4)
    shared, ours = rng.randbytes(20_000), rng.randbytes(40_000)
    with loop(path, 0, SIZE) as device, mounted_at(device, tmp_path / "point") as point:
        for name in ("a", "b", "c"):
            (point / name).write_bytes(name.encode())
            os.setxattr(point / name, "user.shared", shared)
    with open_disk(path, writable=True) as disk, open_changed_tree(disk) as tree:
        tree.remove("/a")
        tree.set_attribute("/b", "user.ours", ours)
        tree.set_attribute("/b", "user.small", b"small")
        tree.remove_attribute("/c", "user.shared")
        tree.write("/new", b"new", attributes={"user.ours": ours, "user.empty": b""})
        assert tree.attribute("/b", "user.shared") == shared
    run(tool("e2fsck"), "-fn", path)
    with loop(path, 0, SIZE) as device, mounted_at(device, tmp_path / "point") as point:
        assert os.getxattr(point / "b", "user.shared") == shared
        assert os.getxattr(point / "new", "user.ours") == os.getxattr(point / "b", "user.ours") == ours
        assert os.listxattr(point / "c") == []
        os.setxattr(point / "b", "user.ours", b"small again")
        (point / "new").unlink()
    run(tool("e2fsck"), "-fn", path)
