# SPDX-License-Identifier: MIT
"""Find the inodes with blocks beyond the new end, and those in removed groups."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.bitmaps import runs_of
from pydiskimg.fs.ext4.change.contents import has_map
from pydiskimg.fs.ext4.change.groups import ChangedGroups
from pydiskimg.fs.ext4.change.inodes import value_references
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.inode_table import InodeTable
from pydiskimg.fs.ext4.inodes import StoredInode, inode_name, inode_table
from pydiskimg.fs.ext4.map_reader import MapReader
from pydiskimg.fs.ext4.shrink.leaving import LeavingBlocks, leaving_blocks
from pydiskimg.fs.ext4.shrink.refusals import check_renumbered
from pydiskimg.protocols import read_bytes


@dataclass(slots=True)
class Survey:
    """Numbers of inodes, ascending: files have contents, or blocks of their map, that must move, leaving are in removed
    groups; attribute_blocks are the blocks that must move, with the inodes that share each.
    """

    files: array[int] = field(default_factory=lambda: array("I"))
    leaving: array[int] = field(default_factory=lambda: array("I"))
    attribute_blocks: dict[int, list[int]] = field(default_factory=dict)


def survey(fs: FileSystem, groups: ChangedGroups, new: Geometry, most: int | None) -> Survey:
    """Visit all inodes in use; most is how many blocks one commit can change, None: any number.

    Raises NotBelievedError if one is damaged or blocks belong to several, FileSystemError for bad blocks beyond the end
    and for inodes that must keep their numbers, RefusedError for values that cannot be moved, and as reading does.
    """
    found, last, taken, leaving = Survey(), new.inodes, 0, leaving_blocks(fs.geometry, new)
    for inode in inodes_in_use(fs, groups):
        value_references(fs, inode)
        if inode.number > last:
            check_renumbered(fs, inode, most)
            found.leaving.append(inode.number)
        if inode.xattr_block and leaving.touch(inode.xattr_block):
            found.attribute_blocks.setdefault(inode.xattr_block, []).append(inode.number)
        if inode.number != layout.RESIZE_INODE and (has_map(inode) or inode.number == layout.BAD_BLOCKS_INODE):
            blocks, moves = _blocks(fs, inode, leaving)
            taken += blocks
            if taken > fs.geometry.blocks:
                raise fs.not_believed(
                    f"{inode_name(inode.number)}: it and the inodes before it have more blocks than the file system"
                )
            if moves and inode.number == layout.BAD_BLOCKS_INODE:
                raise FileSystemError(f"{fs.name}: its ext file system has bad blocks after its new end")
            if moves:
                found.files.append(inode.number)
    return found


def _blocks(fs: FileSystem, inode: StoredInode, leaving: LeavingBlocks) -> tuple[int, bool]:
    """Return how many blocks a file has including its map's, and whether one of them must move."""
    reader = MapReader(fs, inode)
    taken, moves = 0, False
    for _, at, count, _ in reader.pieces():
        taken += count
        moves = moves or leaving.touch(at, count)
    return taken + len(reader.nodes), moves or any(leaving.touch(node) for node in reader.nodes)


def inodes_in_use(fs: FileSystem, groups: ChangedGroups) -> Iterator[StoredInode]:
    """Yield the inodes that are in use by the bitmaps, except reserved ones that are all zero."""
    table, per_group, first = InodeTable(fs), fs.geometry.inodes_per_group, fs.superblock.first_inode
    for group in range(fs.geometry.groups):
        for start, end in runs_of(groups.stored(group).inodes):
            for number in range(group * per_group + start + 1, group * per_group + end + 1):
                if number >= first or not _is_blank(fs, number):
                    yield table.inode(number)


def _is_blank(fs: FileSystem, number: int) -> bool:
    geometry = fs.geometry
    group, index = divmod(number - 1, geometry.inodes_per_group)
    at = inode_table(fs, group) * geometry.block_size + index * geometry.inode_size
    return not any(read_bytes(fs.source, at, geometry.inode_size))
