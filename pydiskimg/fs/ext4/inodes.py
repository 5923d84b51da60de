# SPDX-License-Identifier: MIT
"""Inodes as they are read, and those that every new file system begins with (inodes.rst)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.descriptors import location_problem, read_descriptor
from pydiskimg.fs.ext4.file_system import FileSystem
from pydiskimg.fs.ext4.geometry import Geometry
from pydiskimg.protocols import read_bytes
from pydiskimg.records import Value
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.fs.ext4.file_map import FileMap

_NAMES = {layout.ROOT_INODE: "root directory", layout.RESIZE_INODE: "resize inode", layout.JOURNAL_INODE: "journal"}


@dataclass(frozen=True, slots=True)
class StoredInode:
    """An inode as it is stored at offset of block; seed starts the checksums of the blocks that belong to it."""

    number: int
    block: int
    offset: int
    raw: bytes
    fields: dict[str, Any]
    seed: int

    @property
    def i_block(self) -> bytes:
        return bytes(self.fields["i_block"])

    @property
    def flags(self) -> int:
        return int(self.fields["i_flags"])


def read_inode(fs: FileSystem, number: int) -> StoredInode:
    """Return an inode of the first group.

    Raises NotBelievedError when its location or its checksum is wrong, and as reading does.
    """
    geometry, descriptor = fs.geometry, read_descriptor(fs, 0)
    problem = location_problem(geometry, descriptor)
    if problem is not None:
        raise fs.not_believed(f"group 0, which has {inode_name(number)}: {problem}")
    skipped, offset = divmod((number - 1) * geometry.inode_size, geometry.block_size)
    block = descriptor.inode_table + skipped
    raw = read_bytes(fs.source, block * geometry.block_size + offset, geometry.inode_size)
    sealed = bytearray(raw)
    fs.checksums.inode(number, sealed)
    if sealed != raw:
        raise fs.not_believed(f"the checksum of {inode_name(number)} does not hold")
    fields = layout.INODE.unpack(raw.ljust(layout.INODE.size, b"\0"))
    seed = fs.checksums.for_inode(number, fields["i_generation"].to_bytes(4, "little"))
    return StoredInode(number, block, offset, raw, fields, seed)


def inode_name(number: int) -> str:
    """Return how messages call an inode."""
    return f"inode {number} (the {_NAMES[number]})" if number in _NAMES else f"inode {number}"


class NewInodes:
    """The inodes 1 to 11 of a new file system, with all their times at now (seconds since 1970)."""

    def __init__(self, geometry: Geometry, checksums: Checksums, now: int) -> None:
        self._geometry = geometry
        self._checksums = checksums
        self._now = now
        self._table = {number: bytearray(geometry.inode_size) for number in range(1, layout.FIRST_INODE + 1)}
        times = dict.fromkeys(("i_atime", "i_ctime", "i_mtime"), now & 0xFFFFFFFF)
        layout.INODE.put(self._table[layout.BAD_BLOCKS_INODE], times)

    def set(self, number: int, mode: int, links: int, size: int, blocks: int, i_block: bytes, flags: int = 0) -> None:
        """Define one inode; size is in bytes, blocks in file system blocks."""
        sectors = blocks * self._geometry.block_size // 512
        # The low half is read as a signed number; the epoch bits say how often 2^32 seconds are to be added to that.
        seconds, epoch = self._now & 0xFFFFFFFF, (self._now + (1 << 31)) >> 32
        values: dict[str, Value] = {
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
        flags = layout.EXTENTS_FLAG if mapping.is_extents else 0
        self.set(number, mode, links, size, mapping.blocks, mapping.i_block, flags)

    def first_blocks(self) -> bytes:
        """Return the blocks of the inode table that hold them, checksummed and padded with zeros."""
        for number, inode in self._table.items():
            self._checksums.inode(number, inode)
        data = b"".join(self._table.values())
        return data.ljust(-(-len(data) // self._geometry.block_size) * self._geometry.block_size, b"\0")
