# SPDX-License-Identifier: MIT
"""Values of attributes in inodes of their own as Lustre has written them: with the number of their file in i_mtime.

mke2fs and the kernel make the other kind. One of that is made into one of Lustre's; e2fsck is the judge of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.change.inodes import changed, value_references
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.ext4.file_system import FileSystem, read_file_system
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.inodes import StoredInode, read_inode
from pydiskimg.fs.ext4.shrink import shrink_ext
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.records import Value
from pydiskimg.units import MIB
from tests.fixtures.judged_ext import disk_of, judged
from tests.fixtures.programs import Tool

pytestmark = pytest.mark.oracle

VALUE = bytes(range(256)) * 20


def put_inode(disk: MemoryDisk, inode: StoredInode, values: dict[str, Value]) -> None:
    fs = read_file_system(disk)
    inode = changed(inode, values)
    seed = fs.checksums.for_inode(inode.number, int(inode.fields["i_generation"]).to_bytes(4, "little"))
    raw = bytearray(inode.raw)
    fs.checksums.inode(seed, raw)
    disk.write(inode.block * fs.geometry.block_size + inode.offset, bytes(raw))


def fields(fs: FileSystem, number: int) -> dict[str, Value]:
    return read_inode(fs, number).fields


def with_value(tool: Tool, directory: Path) -> MemoryDisk:
    """Return a file system with /file, which has a value of Lustre's kind, and /other."""
    disk = disk_of(tool, directory, "-t ext4 -b 1024 -O ea_inode")
    with open_changed_tree(disk) as tree:
        tree.write("/file", b"contents", attributes={"user.large": VALUE, "user.small": b"s"})
        tree.write("/other", b"other")
        number = tree.stat("/file").st_ino
    fs = read_file_system(disk)
    file = read_inode(fs, number)
    [(_, held, size, _)] = value_references(fs, file)
    generation: Value = file.fields["i_generation"]
    # The hash in i_atime is another one than that of the attribute, and no references are counted.
    values: dict[str, Value] = {"i_mtime": number, "i_generation": generation, "i_atime": 77, "i_ctime": 77}
    put_inode(disk, read_inode(fs, held), values)
    put_inode(disk, file, {"i_blocks_lo": file.counted - size // 512})  # they count as their own inode's
    return disk


def test_it_is_read_and_kept(tool: Tool, tmp_path: Path) -> None:
    disk = with_value(tool, tmp_path)
    judged(tool, tmp_path, disk)
    with open_ext_tree(disk) as read:
        assert read.attributes("/file") == {"user.large": VALUE, "user.small": b"s"}
    with open_changed_tree(disk) as tree:
        tree.chmod("/file", 0o600)
        tree.rename("/file", "/renamed")
        tree.link("/renamed", "/link")
        tree.remove("/renamed")
        tree.remove("/other")
        assert tree.attributes("/link")["user.large"] == VALUE
    judged(tool, tmp_path, disk)
    larger = MemoryDisk(20 * MIB)
    larger.data[: disk.size] = disk.data
    plan_ext_growth(larger).write()
    judged(tool, tmp_path, larger)


CHANGES: dict[str, Callable[[ChangedTree], object]] = {
    "set": lambda tree: tree.set_attribute("/file", "user.large", VALUE + b"more"),
    "set another": lambda tree: tree.set_attribute("/file", "user.other", b"o"),
    "removed": lambda tree: tree.remove_attribute("/file", "user.large"),
    "removed with its file": lambda tree: tree.remove("/file"),
    "replaced with its file": lambda tree: tree.rename("/other", "/file"),
    "contents": lambda tree: tree.write("/file", b"new"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_would_change_it_is_refused(tool: Tool, tmp_path: Path, name: str) -> None:
    disk = with_value(tool, tmp_path)
    start = bytes(disk.data)
    said = r"cannot be changed: inode \d+ has an extended attribute with its value in inode \d+ as Lustre wrote it"
    with open_changed_tree(disk) as tree, pytest.raises(DiskImageError, match=said):
        CHANGES[name](tree)
    assert bytes(disk.data) == start


def test_a_file_system_with_one_is_not_made_smaller(tool: Tool, tmp_path: Path) -> None:
    disk = with_value(tool, tmp_path)
    start = bytes(disk.data)
    with pytest.raises(DiskImageError, match="cannot be shrunk: a file of it cannot be changed: inode"):
        shrink_ext(disk)
    assert bytes(disk.data) == start


def test_a_wrong_number_of_the_file_is_found(tool: Tool, tmp_path: Path) -> None:
    disk = with_value(tool, tmp_path)
    fs = read_file_system(disk)
    with open_ext_tree(disk) as tree:
        file = read_inode(fs, tree.stat("/file").st_ino)
    held = next(number for number in range(file.number, fs.geometry.inodes) if fields(fs, number)["i_atime"] == 77)
    put_inode(disk, read_inode(fs, held), {"i_mtime": file.number + 5})
    assert not check_ext(disk).is_clean
