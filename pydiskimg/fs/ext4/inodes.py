# SPDX-License-Identifier: MIT
"""The inodes and directories that every new file system has: /, /lost+found, the resize inode, the journal."""

from __future__ import annotations

import struct

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.fs.ext4.new_file_map import FileMap, extent_map, pointer_map
from pydiskimg.fs.ext4.placement import Placement, Run
from pydiskimg.units import KIB

_LOST_FOUND = b"lost+found"
_LOST_FOUND_SIZE = 16 * KIB


class Inodes:
    """Builds inodes of one file system, with all their times at now (seconds since 1970)."""

    def __init__(self, geometry: Geometry, checksums: Checksums, now: int) -> None:
        self._geometry = geometry
        self._checksums = checksums
        self._now = now
        self._table = {number: bytearray(layout.INODE_SIZE) for number in range(1, layout.FIRST_INODE + 1)}
        times = dict.fromkeys(("i_atime", "i_ctime", "i_mtime"), now & 0xFFFFFFFF)
        layout.INODE.put(self._table[layout.BAD_BLOCKS_INODE], times)

    def set(self, number: int, mode: int, links: int, size: int, blocks: int, i_block: bytes, flags: int = 0) -> None:
        """Define one inode; size is in bytes, blocks in file system blocks."""
        sectors = blocks * self._geometry.block_size // 512
        # The low half is read as a signed number; the epoch bits say how often 2^32 seconds are to be added to that.
        seconds, epoch = self._now & 0xFFFFFFFF, (self._now + (1 << 31)) >> 32
        values: dict[str, int | bytes] = {
            "i_mode": mode,
            "i_links_count": links,
            "i_size_lo": size & 0xFFFFFFFF,
            "i_size_high": size >> 32,
            "i_blocks_lo": sectors & 0xFFFFFFFF,
            "i_blocks_high": sectors >> 32,
            "i_flags": flags,
            "i_block": i_block,
            "i_extra_isize": layout.INODE_EXTRA_SIZE,
        }
        values |= dict.fromkeys(("i_atime", "i_ctime", "i_mtime", "i_crtime"), seconds)
        values |= dict.fromkeys(("i_atime_extra", "i_ctime_extra", "i_mtime_extra", "i_crtime_extra"), epoch)
        self._table[number] = bytearray(layout.INODE.pack(**values))

    def set_mapped(self, number: int, mode: int, links: int, size: int, mapping: FileMap) -> None:
        """Define an inode whose blocks are mapped as the file system maps files."""
        flags = layout.EXTENTS_FLAG if self._geometry.features.extents else 0
        self.set(number, mode, links, size, mapping.blocks, mapping.i_block, flags)

    def first_blocks(self) -> bytes:
        """Return the blocks of the inode table that hold the inodes 1 to 11, checksummed and padded with zeros."""
        for number, inode in self._table.items():
            self._checksums.inode(number, inode)
        data = b"".join(self._table.values())
        return data.ljust(-(-len(data) // self._geometry.block_size) * self._geometry.block_size, b"\0")


def map_small(geometry: Geometry, runs: list[Run]) -> FileMap:
    """Map a file of few blocks; runs are allocated."""
    if geometry.features.extents:
        return extent_map(runs, geometry.block_size, None)
    return pointer_map(runs, geometry.block_size, sum(end - start for start, end in runs))


def make_directories(
    geometry: Geometry, placement: Placement, checksums: Checksums, inodes: Inodes
) -> dict[int, bytearray]:
    """Define / and /lost+found and return the contents of their blocks by number."""
    root = map_small(geometry, list(placement.allocate_all(geometry.first_data_block, 1)))
    count = min(_LOST_FOUND_SIZE // geometry.block_size, layout.DIRECT_BLOCKS)
    lost = map_small(geometry, list(placement.allocate_all(geometry.first_data_block, count)))
    inodes.set_mapped(layout.ROOT_INODE, layout.DIRECTORY | 0o755, 3, geometry.block_size, root)
    size = count * geometry.block_size
    inodes.set_mapped(layout.LOST_FOUND_INODE, layout.DIRECTORY | 0o700, 2, size, lost)
    blocks: dict[int, bytearray] = {}
    root_entries = [(layout.ROOT_INODE, b"."), (layout.ROOT_INODE, b".."), (layout.LOST_FOUND_INODE, _LOST_FOUND)]
    blocks[root.first_block] = _directory_block(geometry, checksums, layout.ROOT_INODE, root_entries)
    entries = [(layout.LOST_FOUND_INODE, b"."), (layout.ROOT_INODE, b"..")]
    for start, end in lost.runs:
        for block in range(start, end):
            blocks[block] = _directory_block(geometry, checksums, layout.LOST_FOUND_INODE, entries)
            entries = []
    return blocks


def _directory_block(
    geometry: Geometry, checksums: Checksums, number: int, entries: list[tuple[int, bytes]]
) -> bytearray:
    """Return a block of the directory with this inode number; no entries: one unused entry fills it."""
    space = geometry.block_size - (layout.DIRECTORY_TAIL.size if checksums.active else 0)
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
        checksums.directory_block(number, block)
    return block


def make_resize_inode(geometry: Geometry, placement: Placement, inodes: Inodes) -> dict[int, bytes]:
    """Define the inode that holds the reserved descriptor blocks and return its map's blocks by number.

    Its double indirect block points to the reserved blocks of group 0, and each of those to its copies in the
    backup groups; blocks that follow each other in the result's numbering are written as one.
    """
    head = 1 + geometry.desc_blocks + geometry.reserved_gdt_blocks
    double = placement.allocate(geometry.first_data_block + head + 2 + geometry.inode_blocks, 1)[0]
    per_block = geometry.block_size // 4
    first = geometry.first_data_block + 1 + geometry.desc_blocks
    reserved = range(first, first + geometry.reserved_gdt_blocks)
    pointers = [0] * per_block
    for index, block in enumerate(reserved):
        pointers[(geometry.desc_blocks + index) % per_block] = block
    distances = [group * geometry.blocks_per_group for group in geometry.backups()]
    node = struct.Struct(f"<{len(distances)}I")
    padding = bytes(geometry.block_size - node.size)
    copies = b"".join([node.pack(*[block + distance for distance in distances]) + padding for block in reserved])
    blocks = 1 + len(reserved) * (1 + len(distances))
    i_block = struct.pack("<15I", *[0] * 13, double, 0)
    size = (per_block * per_block + per_block + layout.DIRECT_BLOCKS) * geometry.block_size
    inodes.set(layout.RESIZE_INODE, layout.REGULAR_FILE | 0o600, 1, size, blocks, i_block)
    written = {double: struct.pack(f"<{per_block}I", *pointers)}
    if copies:
        written[first] = copies
    return written
