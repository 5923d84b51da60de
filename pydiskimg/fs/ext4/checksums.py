# SPDX-License-Identifier: MIT
"""Which bytes each structure's checksum covers (checksums.rst); every one starts from the file system's seed.

Without metadata_csum the same calls leave the structures as they are.
"""

from __future__ import annotations

from uuid import UUID

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.crc32c import crc32c, crc32c_columns

_BG_CHECKSUM = layout.GROUP_DESCRIPTOR_64.offsets["bg_checksum"]


class Checksums:
    """The checksums of one file system; active says whether it has metadata_csum, seed is its UUID's or another."""

    def __init__(self, uuid: UUID, *, active: bool, seed: int | None = None) -> None:
        self.active = active
        self._seed = crc32c(uuid.bytes) if seed is None else seed
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
        has_high = (
            len(inode) > layout.GOOD_OLD_INODE_SIZE and inode[at["i_extra_isize"]] >= layout.EXTRA_SIZE_OF_CHECKSUM
        )
        if has_high:
            inode[high : high + 2] = bytes(2)
        value = crc32c(inode, self._for_inode(number, bytes(inode[generation : generation + 4])))
        inode[low : low + 2] = (value & 0xFFFF).to_bytes(2, "little")
        if has_high:
            inode[high : high + 2] = (value >> 16).to_bytes(2, "little")

    def directory_block(self, number: int, block: bytearray) -> None:
        """Fill in det_checksum in the tail of a directory's leaf block."""
        if self.active:
            tail = len(block) - layout.DIRECTORY_TAIL.size
            value = crc32c(block[:tail], self._for_inode(number))
            layout.DIRECTORY_TAIL.put(block, {"det_checksum": value}, tail)

    def extent_block(self, number: int, block: bytearray, maximum: int) -> None:
        """Fill in et_checksum, which follows the last possible entry (maximum is eh_max)."""
        if self.active:
            tail = layout.EXTENT_HEADER.size + maximum * layout.EXTENT.size
            layout.EXTENT_TAIL.put(block, {"et_checksum": crc32c(block[:tail], self._for_inode(number))}, tail)

    def descriptors(self, table: bytearray, size: int, first_group: int) -> None:
        """Fill in bg_checksum of the descriptors in table, each of size bytes, numbered from first_group."""
        if not self.active:
            return
        table[_BG_CHECKSUM::size] = bytes(len(table) // size)
        table[_BG_CHECKSUM + 1 :: size] = bytes(len(table) // size)
        numbers = b"".join(
            group.to_bytes(4, "little") for group in range(first_group, first_group + len(table) // size)
        )
        columns = [numbers[index::4] for index in range(4)] + [bytes(table[index::size]) for index in range(size)]
        low, second, _, _ = crc32c_columns(columns, self._seed)
        table[_BG_CHECKSUM::size] = low
        table[_BG_CHECKSUM + 1 :: size] = second

    def _for_inode(self, number: int, generation: bytes = bytes(4)) -> int:
        return crc32c(number.to_bytes(4, "little") + generation, self._seed)
