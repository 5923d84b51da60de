# SPDX-License-Identifier: MIT
"""The groups that a file system gets when it grows: each holds its own bitmaps and inode table.

    | superblock, descriptors, reserve (some groups) | block bitmap | inode bitmap | inode table | free ...

Nothing of this is where the smaller file system looks.
"""

from __future__ import annotations

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.checksums import Checksums
from pydiskimg.fs.ext4.existing import Division
from pydiskimg.fs.ext4.groups import bitmap
from pydiskimg.protocols import Disk


class NewGroups:
    """The groups of grown from number first on, without any file."""

    def __init__(self, grown: Division, first: int, checksums: Checksums) -> None:
        self._grown = grown
        self._first = first
        self._checksums = checksums
        self._lazy = grown.has_uninitialised_groups
        long = grown.desc_size >= layout.GROUP_DESCRIPTOR_64.size
        self.record = layout.GROUP_DESCRIPTOR_64 if long else layout.GROUP_DESCRIPTOR_32
        self._is_long = long
        self._bitmaps: dict[tuple[int, int], bytes] = {}

    def overhead(self, group: int) -> int:
        """Return how many blocks of a group its own metadata takes."""
        return self._grown.group_head(group) + 2 + self._grown.inode_blocks

    def free_blocks(self, group: int) -> int:
        return self._size(group) - self.overhead(group)

    def descriptor(self, group: int) -> bytes:
        """Return the descriptor of a group, without its checksum."""
        grown = self._grown
        block_bitmap = grown.group_start(group) + grown.group_head(group)
        values: dict[str, int | bytes] = {}
        for name, number, bits in (
            ("bg_block_bitmap", block_bitmap, 32),
            ("bg_inode_bitmap", block_bitmap + 1, 32),
            ("bg_inode_table", block_bitmap + 2, 32),
            ("bg_free_blocks_count", self.free_blocks(group), 16),
            ("bg_free_inodes_count", grown.inodes_per_group, 16),
            ("bg_itable_unused", grown.inodes_per_group if self._lazy else 0, 16),
            ("bg_block_bitmap_csum", self._bitmap_checksum(group), 16),
        ):
            values |= self.halves(name, number, bits)
        if self._lazy:
            values["bg_flags"] = layout.INODE_UNINIT | (0 if self._is_written(group) else layout.BLOCK_UNINIT)
        return self.record.pack(**values).ljust(grown.desc_size, b"\0")

    def halves(self, name: str, number: int, bits: int) -> dict[str, int | bytes]:
        """Return a number as the fields of a descriptor that hold it, its low bits in the first."""
        fields: dict[str, int | bytes] = {f"{name}_lo": number & (1 << bits) - 1}
        if self._is_long:
            fields[f"{name}_hi"] = number >> bits
        return fields

    def write(self, disk: Disk) -> None:
        """Write the bitmaps and inode tables that the descriptors do not call uninitialised. Errors as for writing."""
        grown = self._grown
        first = max(self._first, grown.groups - 1) if self._lazy else self._first
        no_inodes = bitmap([], grown.inodes_per_group, grown.block_size)
        for group in range(first, grown.groups):
            at = (grown.group_start(group) + grown.group_head(group)) * grown.block_size
            disk.write(at, self._block_bitmap(group) + (b"" if self._lazy else no_inodes))
            if not self._lazy:  # what the disk held before must not be taken for inodes
                disk.zero(at + 2 * grown.block_size, grown.inode_blocks * grown.block_size)

    def _size(self, group: int) -> int:
        return self._grown.group_end(group) - self._grown.group_start(group)

    def _is_written(self, group: int) -> bool:
        """The last block bitmap also says which blocks do not exist."""
        return not self._lazy or group == self._grown.groups - 1

    def _block_bitmap(self, group: int) -> bytes:
        key = (self.overhead(group), self._size(group))
        if key not in self._bitmaps:
            self._bitmaps[key] = bitmap([(0, key[0])], key[1], self._grown.block_size)
        return self._bitmaps[key]

    def _bitmap_checksum(self, group: int) -> int:
        if not (self._checksums.active and self._is_written(group)):
            return 0
        return self._checksums.bitmap(self._block_bitmap(group)[: self._grown.blocks_per_group // 8])
