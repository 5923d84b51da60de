# SPDX-License-Identifier: MIT
"""The bytes that the checksum of each structure covers (checksums.rst): to set it and to check it.

Without metadata_csum, setting a checksum changes nothing, and every check succeeds; but uninit_bg (GDT_CSUM) has a
CRC-16 in the descriptors.
"""

from __future__ import annotations

from pydiskimg.crc32c import byte_table, crc32c, crc32c_columns
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.features import Features, RoCompat
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

_BG_CHECKSUM = layout.GROUP_DESCRIPTOR_64.offsets["bg_checksum"]
_INODE_LOW = layout.INODE.slice_of("i_checksum_lo")
_INODE_HIGH = layout.INODE.slice_of("i_checksum_hi")
_EXTRA_SIZE = layout.INODE.slice_of("i_extra_isize")
_KNOWN_BITMAPS = 64
_FEW_DESCRIPTORS = 16  # up to here, computing checksums together takes longer
_ALL_OR_NOTHING = bytes(1) + bytes([0xFF]) * 0xFF  # translates every byte but zero to all ones
_CRC16_POLYNOMIAL = 0xA001  # ANSI, reflected 0x8005
_CRC16_START = 0xFFFF
_crc16_table: list[int] = []  # not yet computed


def superblock_checksum(superblock: bytes | bytearray) -> int:
    """Return the correct s_checksum; it depends only on the superblock."""
    return crc32c(superblock[: layout.SUPERBLOCK.offsets["s_checksum"]])


class Checksums:
    """The checksums of one file system, from its features, its UUID, and the stored seed if there is one.

    active is True with metadata_csum, cover_descriptors with that or uninit_bg; with these the flags of descriptors are
    used.
    """

    def __init__(self, features: Features, uuid: bytes, seed: int | None = None) -> None:
        self.active = RoCompat.METADATA_CSUM in features
        self.cover_descriptors = self.active or RoCompat.GDT_CSUM in features
        self._uuid = uuid
        self._seed = crc32c(uuid) if seed is None else seed
        self._known: dict[bytes, int] = {}

    def superblock(self, block: bytearray) -> None:
        """Set s_checksum of a superblock of 1024 bytes."""
        if self.active:
            layout.SUPERBLOCK.put(block, {"s_checksum": superblock_checksum(block)})

    def bitmap(self, covered: bytes) -> int:
        """Return the checksum of a bitmap's covered bytes (one bit for each cluster or inode of a group).

        Equal bitmaps (many groups are empty) are computed once.
        """
        if not self.active:
            return 0
        found = self._known.get(covered)
        if found is None:
            if len(self._known) >= _KNOWN_BITMAPS:
                self._known.clear()
            found = self._known[covered] = crc32c(covered, self._seed)
        return found

    def inode(self, seed: int, inode: bytearray) -> None:
        """Set the checksum of an inode; the high half only if i_extra_isize covers its field."""
        if self.active:
            value, has_high = _inode_value(seed, inode)
            inode[_INODE_LOW] = (value & 0xFFFF).to_bytes(2, "little")
            if has_high:
                inode[_INODE_HIGH] = (value >> 16).to_bytes(2, "little")

    def inode_holds(self, seed: int, inode: bytes) -> bool:
        """True if the checksum of an inode is correct."""
        if not self.active:
            return True
        value, has_high = _inode_value(seed, inode)
        stored = inode[_INODE_LOW] + (inode[_INODE_HIGH] if has_high else b"")
        return value.to_bytes(4, "little")[: len(stored)] == stored

    def new_inodes(self, table: bytearray, size: int, first_number: int) -> None:
        """Set the checksums of inodes of size bytes in table, numbered from first_number; zero inodes stay zero.

        Each has an i_extra_isize that covers i_checksum_hi. Computing the checksums together takes a tenth of the time.
        """
        if not self.active:
            return
        count, at = len(table) // size, layout.INODE.offsets
        fields = [at[name] + index for name in ("i_checksum_lo", "i_checksum_hi") for index in (0, 1)]
        for field in fields:
            table[field::size] = bytes(count)
        numbers = b"".join((first_number + index).to_bytes(4, "little") for index in range(count))
        columns = [bytes(table[index::size]) for index in range(size)]
        generation = at["i_generation"]
        start = [numbers[index::4] for index in range(4)] + columns[generation : generation + 4]
        in_use = 0
        for name in ("i_mode", "i_atime"):
            for column in columns[layout.INODE.slice_of(name)]:
                in_use |= int.from_bytes(column, "little")
        mask = in_use.to_bytes(count, "little").translate(_ALL_OR_NOTHING)
        for field, column in zip(fields, crc32c_columns(start + columns, self._seed), strict=True):
            table[field::size] = _masked(column, mask)

    def for_inode(self, number: int, generation: bytes = bytes(4)) -> int:
        """Return the start value for the checksums of the blocks of an inode, and for its own."""
        return crc32c(number.to_bytes(4, "little") + generation, self._seed) if self.active else 0

    def directory_block(self, seed: int, block: bytearray) -> None:
        """Set det_checksum in the tail of a directory's leaf block; seed is the inode's (for_inode())."""
        if self.active:
            tail = len(block) - layout.DIRECTORY_TAIL.size
            layout.DIRECTORY_TAIL.put(block, {"det_checksum": crc32c(block[:tail], seed)}, tail)

    def directory_block_holds(self, seed: int, block: bytes) -> bool:
        """True if the checksum in the tail of a directory's leaf block is correct; False without a tail."""
        if not self.active:
            return True
        at = len(block) - layout.DIRECTORY_TAIL.size
        tail = layout.DIRECTORY_TAIL.unpack(block, at)
        return is_directory_tail(tail) and bool(tail["det_checksum"] == crc32c(block[:at], seed))

    def index_block_holds(self, seed: int, block: bytes, table: int) -> bool:
        """True if the checksum of a directory's block of hashes, whose table begins at byte table, is correct."""
        if not self.active:
            return True
        fields = layout.DX_COUNT_LIMIT.unpack(block, table)
        end, tail = (table + fields[name] * layout.DX_ENTRY.size for name in ("count", "limit"))
        if end > tail or tail + layout.DX_TAIL.size > len(block):
            return False
        covered = block[:end] + block[tail : tail + 4] + bytes(4)
        return bool(layout.DX_TAIL.unpack(block, tail)["dt_checksum"] == crc32c(covered, seed))

    def index_block(self, seed: int, block: bytearray, table: int) -> None:
        """Set dt_checksum of a directory's block of hashes, whose table begins at byte table."""
        if self.active:
            fields = layout.DX_COUNT_LIMIT.unpack(block, table)
            end, tail = (table + fields[name] * layout.DX_ENTRY.size for name in ("count", "limit"))
            covered = block[:end] + block[tail : tail + 4] + bytes(4)
            layout.DX_TAIL.put(block, {"dt_checksum": crc32c(covered, seed)}, tail)

    def xattr_block(self, number: int, block: bytes) -> int:
        """Return the correct h_checksum of the extended attributes in block number."""
        field = layout.XATTR_HEADER.slice_of("h_checksum")
        seed = crc32c(number.to_bytes(8, "little"), self._seed)
        return crc32c(block[: field.start] + bytes(4) + block[field.stop :], seed)

    def value(self, value: bytes) -> int:
        """Return the hash of an attribute's value that is in its own inode, with or without metadata_csum."""
        return crc32c(value, self._seed)

    def mount_protection(self, block: bytes) -> int:
        """Return the correct mmp_checksum."""
        return crc32c(block[: layout.MMP.offsets["mmp_checksum"]], self._seed)

    def extent_block(self, seed: int, block: bytearray) -> None:
        """Set et_checksum, which follows the last possible entry; seed is the inode's."""
        if self.active:
            tail = _extent_tail(block)
            layout.EXTENT_TAIL.put(block, {"et_checksum": crc32c(block[:tail], seed)}, tail)

    def extent_block_holds(self, seed: int, block: bytes) -> bool:
        if not self.active:
            return True
        tail = _extent_tail(block)
        if tail > len(block) - layout.EXTENT_TAIL.size:
            return False
        stored: int = layout.EXTENT_TAIL.unpack(block, tail)["et_checksum"]
        return crc32c(block[:tail], seed) == stored

    def descriptors(self, table: bytearray, size: int, first_group: int) -> None:
        """Set bg_checksum of the descriptors in table, each of size bytes, numbered from first_group."""
        if self.cover_descriptors:
            table[_BG_CHECKSUM::size], table[_BG_CHECKSUM + 1 :: size] = self._of_descriptors(table, size, first_group)

    def descriptors_hold(self, table: bytes, size: int, first_group: int) -> list[bool]:
        """Yield for each descriptor in table whether its checksum is correct."""
        if not self.cover_descriptors:
            return [True] * (len(table) // size)
        low, high = self._of_descriptors(table, size, first_group)
        stored = zip(table[_BG_CHECKSUM::size], table[_BG_CHECKSUM + 1 :: size], strict=True)
        return [found == wanted for found, wanted in zip(stored, zip(low, high, strict=True), strict=True)]

    def _of_descriptors(self, table: bytes | bytearray, size: int, first_group: int) -> tuple[bytes, bytes]:
        """Return the correct bg_checksum of each descriptor in table: all the low bytes, and all the high ones."""
        numbers = [(first_group + index).to_bytes(4, "little") for index in range(len(table) // size)]
        if not self.active:
            return self._crc16_of_descriptors(table, size, numbers)
        if len(numbers) < _FEW_DESCRIPTORS:
            seed, none = self._seed, bytes(2)  # the checksum's own bytes count as zero
            return _low_bytes(crc32c(front + none + rest, seed) for front, rest in _around(table, size, numbers))
        joined = b"".join(numbers)
        columns = [joined[index::4] for index in range(4)] + [bytes(table[index::size]) for index in range(size)]
        columns[4 + _BG_CHECKSUM] = columns[5 + _BG_CHECKSUM] = bytes(len(numbers))
        return crc32c_columns(columns, self._seed)[:2]

    def _crc16_of_descriptors(self, table: bytes | bytearray, size: int, numbers: list[bytes]) -> tuple[bytes, bytes]:
        """As _of_descriptors(); CRC-16 skips the checksum's own field, while crc32c takes it as zero."""
        seed = crc16(self._uuid)
        return _low_bytes(crc16(front + rest, seed) for front, rest in _around(table, size, numbers))


def _around(table: bytes | bytearray, size: int, numbers: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the bytes of each descriptor in table that bg_checksum covers: its number and the bytes before, the bytes
    after.
    """
    for index, number in enumerate(numbers):
        at = index * size + _BG_CHECKSUM
        yield number + table[index * size : at], bytes(table[at + 2 : (index + 1) * size])


def _low_bytes(values: Iterable[int]) -> tuple[bytes, bytes]:
    """Return the lowest bytes of all values, and the second ones."""
    found = list(values)
    return bytes(value & 0xFF for value in found), bytes(value >> 8 & 0xFF for value in found)


def is_directory_tail(tail: Mapping[str, Any]) -> bool:
    """True if the fields of a directory's possible last entry are those of a tail, checked as the kernel does."""
    found = tuple(tail[f"det_{name}"] for name in ("reserved_zero1", "rec_len", "reserved_zero2", "reserved_ft"))
    return found == (0, layout.DIRECTORY_TAIL.size, 0, layout.DIRECTORY_TAIL_TYPE)


def _inode_value(seed: int, inode: bytes | bytearray) -> tuple[int, bool]:
    """Return the checksum of an inode, and whether the inode has room for the high half."""
    extra = int.from_bytes(inode[_EXTRA_SIZE], "little")
    has_high = len(inode) > layout.GOOD_OLD_INODE_SIZE and extra >= layout.EXTRA_SIZE_OF_CHECKSUM
    high = _INODE_HIGH if has_high else slice(len(inode), len(inode))
    none = bytes(2)
    covered = inode[: _INODE_LOW.start] + none + inode[_INODE_LOW.stop : high.start]
    return crc32c(covered + none + inode[high.stop :] if has_high else covered, seed), has_high


def _extent_tail(block: bytes | bytearray) -> int:
    maximum = int(layout.EXTENT_HEADER.unpack(block)["eh_max"])
    return layout.EXTENT_HEADER.size + maximum * layout.EXTENT.size


def _masked(column: bytes, mask: bytes) -> bytes:
    masked = int.from_bytes(column, "little") & int.from_bytes(mask, "little")
    return masked.to_bytes(len(column), "little")


def crc16(data: bytes, register: int = _CRC16_START) -> int:
    """Return the register after data, started from register; there is no final inversion (Linux crc16()).

    Few file systems need it, so a loop over bytes is fast enough.
    """
    if not _crc16_table:
        _crc16_table.extend(byte_table(_CRC16_POLYNOMIAL))
    for byte in data:
        register = _crc16_table[(register ^ byte) & 0xFF] ^ register >> 8
    return register
