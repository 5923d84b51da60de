# SPDX-License-Identifier: MIT
"""Whether what every ext file system begins with is there: root directory, reserved inodes, a copy of the superblock.

Who takes a disk over may leave the superblock as it is. It is in force only with the rest of what it describes.
"""

from __future__ import annotations

from itertools import islice

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.descriptors import read_descriptor
from pydiskimg.fs.ext4.errors import NotBelievedError
from pydiskimg.fs.ext4.existing import Division
from pydiskimg.fs.ext4.features import Compat
from pydiskimg.fs.ext4.file_map import file_runs, read_inode
from pydiskimg.protocols import Source, read_bytes

_TYPE = 0xF000  # of i_mode
_RESERVED_INODES = 10  # in use from the first day on
_MOST_BLOCKS = 4096  # of the root directory, whose places are checked
_MOST_RUNS = 256
# What neither growing nor tune2fs changes in one copy of the superblock alone.
_SHARED = ("s_uuid", "s_log_block_size", "s_first_data_block", "s_blocks_per_group", "s_inodes_per_group")


def check_beginning(source: Source, volume: Division) -> None:
    """Raise NotBelievedError where the beginning of a file system contradicts its superblock; as reading does."""
    problem = _inode_bitmap_problem(source, volume) or _root_problem(source, volume) or _copy_problem(source, volume)
    if problem is not None:
        raise NotBelievedError(volume.name, problem)


def _inode_bitmap_problem(source: Source, volume: Division) -> str | None:
    descriptor = read_descriptor(source, volume, 0)
    if descriptor.flags & layout.INODE_UNINIT:
        return "the inode bitmap of its first group was never written"
    count = min(_RESERVED_INODES, volume.inodes_per_group)
    bits = int.from_bytes(read_bytes(source, descriptor.inode_bitmap * volume.block_size, 2), "little")
    return None if not ~bits & (1 << count) - 1 else f"one of the first {count} inodes, which are reserved, is free"


def _root_problem(source: Source, volume: Division) -> str | None:
    """Judge the root directory by its inode, the places of its blocks, and its entry for itself."""
    raw, _ = read_inode(source, volume, layout.ROOT_INODE)
    fields = layout.INODE.unpack(raw.ljust(layout.INODE.size, b"\0"))
    mode, links, size, flags = (int(fields[name]) for name in ("i_mode", "i_links_count", "i_size_lo", "i_flags"))
    if mode & _TYPE != layout.DIRECTORY or not links:
        return f"inode 2 is not the root directory (mode {mode:#o}, {links} links)"
    if flags & layout.INLINE_DATA_FLAG:
        return None
    if not size or size % volume.block_size:
        return f"its root directory has {size} bytes, with blocks of {volume.block_size}"
    runs = list(islice(file_runs(source, volume, layout.ROOT_INODE, _MOST_BLOCKS), _MOST_RUNS))
    if not runs or runs[0][0]:
        return "its root directory has no first block"
    entry = layout.DIRECTORY_ENTRY.unpack(read_bytes(source, runs[0][1] * volume.block_size, 12))
    if (entry["inode"], entry["name_len"]) != (layout.ROOT_INODE, 1):
        return f"block {runs[0][1]} does not begin the root directory"
    return None


def _copy_problem(source: Source, volume: Division) -> str | None:
    """Judge the superblock by its first copy, where it has one."""
    group = _first_copy(volume)
    if group is None:
        return None
    own, copy = (
        layout.SUPERBLOCK.unpack(read_bytes(source, offset, layout.SUPERBLOCK.size))
        for offset in (layout.SUPERBLOCK_OFFSET, volume.group_start(group) * volume.block_size)
    )
    if copy["s_magic"] != layout.SUPERBLOCK_MAGIC:
        return f"there is no copy of its superblock in group {group}"
    different = next((name for name in _SHARED if own[name] != copy[name]), None)
    return different and f"the copy of its superblock in group {group} has another {different}"


def _first_copy(volume: Division) -> int | None:
    if Compat.SPARSE_SUPER2 in volume.compat:
        return min((group for group in volume.backup_groups if 0 < group < volume.groups), default=None)
    return 1 if volume.groups > 1 else None
