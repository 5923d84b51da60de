# SPDX-License-Identifier: MIT
"""What is read and not changed: features of a file system, and files that a crash left on its list of orphans."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import NOT_CHANGED, Compat, Incompat, RoCompat
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import read_inode
from pydiskimg.fs.ext4.map_reader import file_pieces, pointers_in
from pydiskimg.protocols import read_bytes

_MAX_ORPHANS = 1 << 16
_POINTER_LIMIT = 1 << 32  # blocks that a map of pointers reaches


def check_changeable(fs: FileSystem) -> None:
    """Raise FileSystemError for a file system that is not changed here; as reading does."""
    problem = next((f"the feature {name}" for feature, name in NOT_CHANGED if feature in fs.geometry.features), None)
    if problem is None and Compat.HAS_JOURNAL in fs.geometry.features and not fs.superblock.journal_inode:
        problem = "a journal on another device"
    if problem is None and Incompat.EXTENTS not in fs.geometry.features and fs.geometry.blocks > _POINTER_LIMIT:
        problem = f"{fs.geometry.blocks} blocks and no extents"
    if problem is not None:
        raise FileSystemError(f"{fs.name}: files of an ext file system with {problem} are not changed here")
    _check_not_mounted(fs)


def _check_not_mounted(fs: FileSystem) -> None:
    """Look at what multiple mount protection says."""
    if Incompat.MMP not in fs.geometry.features:
        return
    block = fs.superblock.number("s_mmp_block")
    if not fs.geometry.first_data_block <= block < fs.geometry.blocks:
        raise fs.not_believed(f"its block of multiple mount protection is {block}, of {fs.geometry.blocks}")
    fields = layout.MMP.unpack(read_bytes(fs.source, block * fs.geometry.block_size, layout.MMP.size))
    if (fields["mmp_magic"], fields["mmp_seq"]) != (layout.MMP_MAGIC, layout.MMP_CLEAN):
        raise FileSystemError(
            f"{fs.name}: its ext file system is in use, says its multiple mount protection; unmount it, or check it "
            "(e2fsck)"
        )


def orphans(fs: FileSystem) -> frozenset[int]:
    """Return the inodes that wait to be deleted or cut, as they were left by a crash.

    Raises NotBelievedError for a list without end, and as reading does.
    """
    found: set[int] = set()
    number = fs.superblock.number("s_last_orphan")
    while number:
        if number in found or len(found) >= _MAX_ORPHANS:
            raise fs.not_believed(f"its list of orphans comes back to inode {number}, or is longer than {_MAX_ORPHANS}")
        found.add(number)
        number = int(read_inode(fs, number).fields["i_dtime"])
    if RoCompat.ORPHAN_PRESENT in fs.geometry.features:
        found |= _in_orphan_file(fs)
    return frozenset(found)


def _in_orphan_file(fs: FileSystem) -> set[int]:
    found: set[int] = set()
    size = fs.geometry.block_size
    inode = read_inode(fs, fs.superblock.number("s_orphan_file_inum"))
    for _, at, count in file_pieces(fs, inode, _MAX_ORPHANS * 4 // size + 1):
        for block in range(at, at + count):
            numbers = pointers_in(fs.read(block)[: -layout.ORPHAN_TAIL.size])
            found.update(numbers)
    return found - {0}
