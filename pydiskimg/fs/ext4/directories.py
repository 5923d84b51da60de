# SPDX-License-Identifier: MIT
"""The directories that every new file system has: / and /lost+found (directory.rst)."""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.directory_writer import DirectoryWriter
from pydiskimg.fs.ext4.file_map import Allocator, allocated, map_small
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.inodes import NewInodes
from pydiskimg.units import KIB

LOST_FOUND = b"lost+found"
_LOST_FOUND_SIZE = 16 * KIB


def make_directories(
    geometry: Geometry, allocator: Allocator, checksums: Checksums, inodes: NewInodes
) -> dict[int, bytearray]:
    """Define / and /lost+found and return the contents of their blocks by block number."""
    size, features, goal = geometry.block_size, geometry.features, geometry.first_data_block
    writer = DirectoryWriter(size, checksums)
    root = map_small(features, size, allocated(allocator, goal, 1))
    count = lost_found_blocks(size)
    lost = map_small(features, size, allocated(allocator, goal, count))
    inodes.set_mapped(layout.ROOT_INODE, layout.DIRECTORY | 0o755, 3, size, root)
    inodes.set_mapped(layout.LOST_FOUND_INODE, layout.DIRECTORY | 0o700, 2, count * size, lost)
    entries = [(layout.LOST_FOUND_INODE, LOST_FOUND, layout.FILE_TYPE_DIRECTORY)]
    blocks = {root.first_block: next(writer.linear(layout.ROOT_INODE, layout.ROOT_INODE, entries, 1).blocks)}
    numbers = [block for start, end in lost.runs for block in range(start, end)]
    contents = writer.linear(layout.LOST_FOUND_INODE, layout.ROOT_INODE, [], count).blocks
    return blocks | dict(zip(numbers, contents, strict=True))


def lost_found_blocks(block_size: int) -> int:
    """Return how many blocks /lost+found has: e2fsck adds names there without allocating any."""
    return min(_LOST_FOUND_SIZE // block_size, layout.DIRECT_BLOCKS)
