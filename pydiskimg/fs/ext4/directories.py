# SPDX-License-Identifier: MIT
"""The directories that every new file system has: / and /lost+found (directory.rst)."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.file_map import Allocator, allocated, map_small
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.inodes import NewInodes
from pydiskimg.units import KIB

_LOST_FOUND = b"lost+found"
_LOST_FOUND_SIZE = 16 * KIB


def make_directories(
    geometry: Geometry, allocator: Allocator, checksums: Checksums, inodes: NewInodes
) -> dict[int, bytearray]:
    """Define / and /lost+found and return the contents of their blocks by number."""
    size, features, goal = geometry.block_size, geometry.features, geometry.first_data_block
    root = map_small(features, size, allocated(allocator, goal, 1))
    count = min(_LOST_FOUND_SIZE // size, layout.DIRECT_BLOCKS)
    lost = map_small(features, size, allocated(allocator, goal, count))
    inodes.set_mapped(layout.ROOT_INODE, layout.DIRECTORY | 0o755, 3, size, root)
    inodes.set_mapped(layout.LOST_FOUND_INODE, layout.DIRECTORY | 0o700, 2, count * size, lost)
    blocks: dict[int, bytearray] = {}
    root_entries = [(layout.ROOT_INODE, b"."), (layout.ROOT_INODE, b".."), (layout.LOST_FOUND_INODE, _LOST_FOUND)]
    blocks[root.first_block] = _directory_block(size, checksums, layout.ROOT_INODE, root_entries)
    entries = [(layout.LOST_FOUND_INODE, b"."), (layout.ROOT_INODE, b"..")]
    for start, end in lost.runs:
        for block in range(start, end):
            blocks[block] = _directory_block(size, checksums, layout.LOST_FOUND_INODE, entries)
            entries = []
    return blocks


def _directory_block(block_size: int, checksums: Checksums, number: int, entries: list[tuple[int, bytes]]) -> bytearray:
    """Return a block of the directory with this inode number; no entries: one unused entry fills it."""
    space = block_size - (layout.DIRECTORY_TAIL.size if checksums.active else 0)
    block = bytearray()
    for inode, name in entries or [(0, b"")]:
        length = layout.DIRECTORY_ENTRY.size + -(-len(name) // 4) * 4
        if len(block) + length + layout.DIRECTORY_ENTRY.size > space or (inode, name) == (entries or [(0, b"")])[-1]:
            length = space - len(block)
        file_type = layout.FILE_TYPE_DIRECTORY if inode else 0
        block += layout.DIRECTORY_ENTRY.pack(inode=inode, rec_len=length, name_len=len(name), file_type=file_type)
        block += name.ljust(length - layout.DIRECTORY_ENTRY.size, b"\0")
    if checksums.active:
        block += layout.DIRECTORY_TAIL.pack(
            det_rec_len=layout.DIRECTORY_TAIL.size, det_reserved_ft=layout.DIRECTORY_TAIL_TYPE
        )
        checksums.directory_block(checksums.for_inode(number), block)
    return block
