# SPDX-License-Identifier: MIT
"""Check the structures that every ext file system begins with: root directory, reserved inodes, superblock copy.

A new owner of the disk may leave an old superblock intact. It is valid only with the other structures that it
describes.
"""

from __future__ import annotations

from itertools import islice

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.descriptors import read_descriptor
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.inodes import read_inode
from pydiskimg.fs.ext4.map_reader import file_pieces
from pydiskimg.fs.ext4.superblock import parse_superblock
from pydiskimg.protocols import read_bytes

_TYPE = 0xF000  # of i_mode
_RESERVED_INODES = 10  # in use from the first day on
_MOST_BLOCKS = 4096  # of the root directory, whose locations are checked
_MOST_PIECES = 256
# Fields that neither growing nor tune2fs changes in only one copy of the superblock.
_SHARED = ("s_uuid", "s_log_block_size", "s_first_data_block", "s_blocks_per_group", "s_inodes_per_group")


def check_beginning(fs: FileSystem) -> None:
    """Raise NotBelievedError if the beginning of a file system contradicts its superblock; or as reading does."""
    problem = _inode_bitmap_problem(fs) or _root_problem(fs) or _copy_problem(fs)
    if problem is not None:
        raise fs.not_believed(problem)


def _inode_bitmap_problem(fs: FileSystem) -> str | None:
    descriptor = read_descriptor(fs, 0)
    if descriptor.flags & layout.INODE_UNINIT:
        return "the inode bitmap of its first group was never written"
    count = min(_RESERVED_INODES, fs.geometry.inodes_per_group)
    bits = int.from_bytes(read_bytes(fs.source, descriptor.inode_bitmap * fs.geometry.block_size, 2), "little")
    return None if not ~bits & (1 << count) - 1 else f"one of the first {count} inodes, which are reserved, is free"


def _root_problem(fs: FileSystem) -> str | None:
    """Check the root directory: its inode, the locations of its blocks, and its entry for itself."""
    inode, block_size = read_inode(fs, layout.ROOT_INODE), fs.geometry.block_size
    mode, links, size = (int(inode.fields[name]) for name in ("i_mode", "i_links_count", "i_size_lo"))
    if mode & _TYPE != layout.DIRECTORY or not links:
        return f"inode 2 is not the root directory (mode {mode:#o}, {links} links)"
    if inode.flags & layout.INLINE_DATA_FLAG:
        return None
    if not size or size % block_size:
        return f"its root directory has {size} bytes, with blocks of {block_size}"
    pieces = list(islice(file_pieces(fs, inode, _MOST_BLOCKS), _MOST_PIECES))
    if not pieces or pieces[0][0]:
        return "its root directory has no first block"
    first = pieces[0][1]
    entry = layout.DIRECTORY_ENTRY.unpack(read_bytes(fs.source, first * block_size, layout.DIRECTORY_ENTRY.size))
    if (entry["inode"], entry["name_len"]) != (layout.ROOT_INODE, 1):
        return f"block {first} does not begin the root directory"
    return None


def _copy_problem(fs: FileSystem) -> str | None:
    """Check the superblock against its first copy, if it has one."""
    group = next(iter(fs.geometry.copies), None)
    if group is None:
        return None
    offset = fs.geometry.group_start(group) * fs.geometry.block_size
    copy = parse_superblock(read_bytes(fs.source, offset, layout.SUPERBLOCK.size))
    if copy is None:
        return f"there is no copy of its superblock in group {group}"
    own = fs.superblock.fields
    different = next((name for name in _SHARED if own[name] != copy.fields[name]), None)
    return different and f"the copy of its superblock in group {group} has another {different}"
