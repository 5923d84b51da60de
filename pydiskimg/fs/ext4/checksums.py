# SPDX-License-Identifier: MIT
"""Which bytes each structure's checksum covers (checksums.rst); every one starts from the file system's seed.

Without metadata_csum the same calls leave the structures as they are.
"""

from __future__ import annotations

from pydiskimg.crc32c import crc32c, crc32c_columns
from pydiskimg.fs.ext4 import layout

_BG_CHECKSUM = layout.GROUP_DESCRIPTOR_64.offsets["bg_checksum"]


class Checksums:
    """The checksums of one file system; active says whether it has metadata_csum, seed is the UUID's crc32c mostly."""

    def __init__(self, seed: int, *, active: bool) -> None:
        self.active = active
        self._seed = seed
        self._known: dict[bytes, int] = {}

    def superblock(self, block: bytearray) -> None:
        """Fill in s_checksum of a superblock of 1024 bytes."""
        if self.active:
            at = layout.SUPERBLOCK.offsets["s_checksum"]
            layout.SUPERBLOCK.put(block, {"s_checksum": crc32c(block[:at])})

    def bitmap(self, covered: bytes) -> int:
        """Return the checksum of a bitmap's covered bytes (one bit for each block or inode of a group)."""
        if not self.active:
            return 0
        found = self._known.get(covered)
        if found is None:
            found = self._known[covered] = crc32c(covered, self._seed)
        return found

    def inode(self, number: int, inode: bytearray) -> None:
        """Fill in the checksum of an inode; the high half only where i_extra_isize covers its field."""
        if not self.active:
            return
        at = layout.INODE.offsets
        low, high, generation = at["i_checksum_lo"], at["i_checksum_hi"], at["i_generation"]
        inode[low : low + 2] = bytes(2)
        extra = int.from_bytes(inode[at["i_extra_isize"] : at["i_extra_isize"] + 2], "little")
        has_high = len(inode) > layout.GOOD_OLD_INODE_SIZE and extra >= layout.EXTRA_SIZE_OF_CHECKSUM
        if has_high:
            inode[high : high + 2] = bytes(2)
        value = crc32c(inode, self.for_inode(number, bytes(inode[generation : generation + 4])))
        inode[low : low + 2] = (value & 0xFFFF).to_bytes(2, "little")
        if has_high:
            inode[high : high + 2] = (value >> 16).to_bytes(2, "little")

    def directory_block(self, number: int, block: bytearray) -> None:
        """Fill in det_checksum in the tail of a directory's leaf block."""
        if self.active:
            tail = len(block) - layout.DIRECTORY_TAIL.size
            value = crc32c(block[:tail], self.for_inode(number))
            layout.DIRECTORY_TAIL.put(block, {"det_checksum": value}, tail)

    def extent_block(self, number: int, block: bytearray, maximum: int) -> None:
        """Fill in et_checksum, which follows the last possible entry (maximum is eh_max)."""
        if self.active:
            tail = layout.EXTENT_HEADER.size + maximum * layout.EXTENT.size
            layout.EXTENT_TAIL.put(block, {"et_checksum": crc32c(block[:tail], self.for_inode(number))}, tail)

    def descriptors(self, table: bytearray, size: int, first_group: int) -> None:
        """Fill in bg_checksum of the descriptors in table, each of size bytes, numbered from first_group."""
        if self.active:
            low, high = descriptor_checksums(table, size, first_group, self._seed)
            table[_BG_CHECKSUM::size] = low
            table[_BG_CHECKSUM + 1 :: size] = high

    def for_inode(self, number: int, generation: bytes = bytes(4)) -> int:
        """Return the start value of the checksums of what belongs to an inode, and of its own."""
        return crc32c(number.to_bytes(4, "little") + generation, self._seed)


def descriptor_checksums(table: bytes | bytearray, size: int, first_group: int, seed: int) -> tuple[bytes, bytes]:
    """Return what bg_checksum should be in each descriptor in table: all the low bytes, and all the high ones."""
    count = len(table) // size
    numbers = b"".join(group.to_bytes(4, "little") for group in range(first_group, first_group + count))
    columns = [numbers[index::4] for index in range(4)] + [bytes(table[index::size]) for index in range(size)]
    columns[4 + _BG_CHECKSUM] = columns[5 + _BG_CHECKSUM] = bytes(count)  # its own place counts as zero
    return crc32c_columns(columns, seed)[:2]
