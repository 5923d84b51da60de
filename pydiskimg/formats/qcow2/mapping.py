# SPDX-License-Identifier: MIT
"""From guest offsets to host offsets: the L1 and L2 tables (QEMU docs/interop/qcow2, "Cluster mapping").

A table is checked whole when it is loaded, so that what comes out of here can be used as it is. The common
tables are classified by operations over all their bytes at once; only unusual ones are walked entry by entry.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.formats.qcow2 import layout
from pydiskimg.formats.qcow2.cache import Cache
from pydiskimg.formats.qcow2.header import Header
from pydiskimg.protocols import Source, read_bytes

L1_PIECE = 64 << 10
L1_CACHE = 1 << 20
L2_CACHE = 16 << 20

HOLE, ZERO, DATA, COMPRESSED = b"HZDC"
_KINDS = {HOLE: Kind.HOLE, ZERO: Kind.ZERO, DATA: Kind.DATA, COMPRESSED: Kind.DATA}
_RUNS = re.compile(b"H+|Z+|[DC]+")
_NOT_ZERO = re.compile(rb"[^\0]")

# One byte per entry: 1 for an offset, 2 for the zero bit, 4 for the compressed bit; the strongest decides.
_HAS_ZERO_BIT = bytes(2 * (byte & 1) for byte in range(256))
_HAS_COMPRESSED_BIT = bytes(4 * (byte >> 6 & 1) for byte in range(256))
_CODES = bytes((HOLE, DATA, ZERO, ZERO, *[COMPRESSED] * 4)).ljust(256, b"\0")


@dataclass(frozen=True, slots=True)
class Table:
    """An L2 table that was checked: its entries, and one byte of kind (HOLE, ZERO, DATA, COMPRESSED) for each."""

    entries: array[int]
    kinds: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes [start, start + length) of the guest that are found in one place.

    kind is HOLE, ZERO, DATA or COMPRESSED. host is the file's offset of the first byte (DATA), or that of the
    compressed data of the one cluster the run lies in (COMPRESSED), which has host_length bytes at most.
    """

    kind: int
    start: int
    length: int
    host: int = 0
    host_length: int = 0


class Mapping:
    """The active L1 table of a qcow2 file and the L2 tables below it, read as they are needed.

    Safe from several threads. Every method may raise InvalidImageError (a table contradicts the specification)
    and StorageError.
    """

    def __init__(self, file: Source, header: Header) -> None:
        self._file = file
        self._header = header
        self._l1_pieces: Cache[bytes] = Cache(L1_CACHE)
        self._l2_tables: Cache[Table] = Cache(L2_CACHE)
        # Section "Compressed Clusters Descriptor": the offset has this many bits, the sector count those above.
        self._offset_bits = 62 - (header.cluster_bits - 8)
        self._wrong = layout.L2_STANDARD_RESERVED | (layout.ENTRY_OFFSET & (header.cluster_size - 1))
        if header.version < 3:
            self._wrong |= layout.L2_ZERO

    def extents(self) -> Iterator[Extent]:
        """Yield the extents of the virtual disk, in memory that does not depend on its size."""
        return merged(self._pieces())

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """Yield the runs that [offset, offset + length) of the virtual disk consists of, in order."""
        end = offset + length
        while offset < end:
            index, inside = divmod(offset, self._header.l2_span)
            stop = min(end, (index + 1) * self._header.l2_span)
            table = self._table(index)
            if table is None:
                yield Run(HOLE, offset, stop - offset)
            else:
                yield from self._runs_in_table(table, offset, inside, stop)
            offset = stop

    def compressed_at(self, entry: int) -> tuple[int, int]:
        """Return (offset, length) in the file of a compressed cluster's data; length is exact to one sector."""
        offset = entry & ((1 << self._offset_bits) - 1)
        sectors = ((entry & (layout.L2_COMPRESSED - 1)) >> self._offset_bits) + 1
        return offset, sectors * layout.SECTOR - offset % layout.SECTOR

    def _pieces(self) -> Iterator[Extent]:
        size, span, cluster_size = self._header.size, self._header.l2_span, self._header.cluster_size
        position = 0
        for index in self._used_l1_indices():
            table = self._table(index)
            if table is None:
                continue
            yield Extent(position, index * span - position, Kind.HOLE)
            position = index * span
            for found in _RUNS.finditer(table.kinds):
                if position >= size:
                    return
                length = min((found.end() - found.start()) * cluster_size, size - position)
                yield Extent(position, length, _KINDS[found.group()[0]])
                position += length
        yield Extent(position, size - position, Kind.HOLE)

    def _used_l1_indices(self) -> Iterator[int]:
        """Indices of the L1 entries that are not zero, runs of zeros being skipped as bytes."""
        entries_in_piece = L1_PIECE // layout.ENTRY_SIZE
        for first in range(0, self._header.l1_entries_used, entries_in_piece):
            piece = self._l1_piece(first // entries_in_piece)
            if not piece.strip(b"\0"):
                continue
            at = 0
            while found := _NOT_ZERO.search(piece, at):
                index = found.start() // layout.ENTRY_SIZE
                yield first + index
                at = (index + 1) * layout.ENTRY_SIZE

    def _l1_piece(self, number: int) -> bytes:
        piece = self._l1_pieces.get(number)
        if piece is None:
            start = number * L1_PIECE
            length = min(L1_PIECE, self._header.l1_entries_used * layout.ENTRY_SIZE - start)
            piece = read_bytes(self._file, self._header.l1_table_offset + start, length)
            self._l1_pieces.put(number, piece, length)
        return piece

    def _table(self, index: int) -> Table | None:
        """The L2 table under L1 entry index; None when nothing is stored there."""
        number, at = divmod(index * layout.ENTRY_SIZE, L1_PIECE)
        entry = int.from_bytes(self._l1_piece(number)[at : at + layout.ENTRY_SIZE], "big")
        offset = self._check_l1_entry(index, entry)
        if not offset:
            return None
        table = self._l2_tables.get(offset)
        if table is None:
            raw = read_bytes(self._file, offset, self._header.cluster_size)
            table = self._checked_table(index, raw)
            self._l2_tables.put(offset, table, len(raw) + len(table.kinds))
        return table

    def _check_l1_entry(self, index: int, entry: int) -> int:
        offset = entry & layout.ENTRY_OFFSET
        if entry & layout.L1_RESERVED or offset % self._header.cluster_size:
            raise self._invalid(f"L1 entry {index}", f"0x{entry:016x} has reserved bits set or is not aligned")
        if offset and offset + self._header.cluster_size > self._file.size:
            raise self._invalid(f"L1 entry {index}", self._beyond(f"L2 table offset 0x{offset:x}"))
        return offset

    def _checked_table(self, index: int, raw: bytes) -> Table:
        entries = array("Q", raw)
        if sys.byteorder == "little":
            entries.byteswap()
        count = len(entries)
        if not raw.strip(b"\0"):
            return Table(entries, bytes((HOLE,)) * count)
        offsets = _entries(_masked(raw, layout.ENTRY_OFFSET), count)
        compressed = raw[0::8].translate(_HAS_COMPRESSED_BIT)
        zero = raw[7::8].translate(_HAS_ZERO_BIT)
        stored = bytes(map(bool, offsets))
        unusual = any(compressed) or _masked(raw, self._wrong) or max(offsets) >= self._file.size
        if unusual:
            self._check_entries(index, entries)
        return Table(entries, _combined(compressed, zero, stored).translate(_CODES))

    def _check_entries(self, table: int, entries: array[int]) -> None:
        end, offset_mask = self._file.size, (1 << self._offset_bits) - 1
        for index, entry in enumerate(entries):
            if entry & layout.L2_COMPRESSED:
                if entry & offset_mask >= end:
                    where = f"compressed cluster offset 0x{entry & offset_mask:x}"
                    raise self._invalid(f"L2 table {table}, entry {index}", self._beyond(where))
            elif entry & self._wrong:
                raise self._invalid(
                    f"L2 table {table}, entry {index}", f"0x{entry:016x} has reserved bits set or is not aligned"
                )
            elif entry & layout.ENTRY_OFFSET >= end and not entry & layout.L2_ZERO:
                where = f"cluster offset 0x{entry & layout.ENTRY_OFFSET:x}"
                raise self._invalid(f"L2 table {table}, entry {index}", self._beyond(where))

    def _runs_in_table(self, table: Table, offset: int, inside: int, stop: int) -> Iterator[Run]:
        """inside is offset's distance from the start of what the table maps; stop is not beyond its end."""
        cluster_size = self._header.cluster_size
        last = inside + (stop - offset) - 1
        index, end_index = inside // cluster_size, last // cluster_size + 1
        while index < end_index:
            kind = table.kinds[index]
            after = self._end_of_run(table, index, end_index)
            skip = offset % cluster_size
            length = min((after - index) * cluster_size - skip, stop - offset)
            entry = table.entries[index]
            if kind == DATA:
                yield Run(kind, offset, length, (entry & layout.ENTRY_OFFSET) + skip)
            elif kind == COMPRESSED:
                yield Run(kind, offset, length, *self.compressed_at(entry))
            else:
                yield Run(kind, offset, length)
            offset += length
            index = after

    def _end_of_run(self, table: Table, index: int, end_index: int) -> int:
        """The first index after index whose cluster does not continue it: in the guest, and for DATA in the file."""
        kinds, kind = table.kinds, table.kinds[index]
        after = index + 1
        if kind == COMPRESSED:
            return after
        if kind != DATA:
            while after < end_index and kinds[after] == kind:
                after += 1
            return after
        entries, cluster_size = table.entries, self._header.cluster_size
        expected = (entries[index] & layout.ENTRY_OFFSET) + cluster_size
        while after < end_index and kinds[after] == DATA and entries[after] & layout.ENTRY_OFFSET == expected:
            after += 1
            expected += cluster_size
        return after

    def _beyond(self, what: str) -> str:
        return f"{what} lies beyond the end of the file (0x{self._file.size:x})"

    def _invalid(self, where: str, text: str) -> InvalidImageError:
        return InvalidImageError(f"{self._file.name}: {where}: {text}; the image is truncated or corrupt")


def _masked(raw: bytes, mask: int) -> int:
    """All of raw as one number, in which every 64-bit entry was and-ed with mask."""
    return int.from_bytes(raw, "big") & int.from_bytes(mask.to_bytes(8, "big") * (len(raw) // 8), "big")


def _entries(number: int, count: int) -> array[int]:
    """The 64-bit entries of a number made by _masked()."""
    entries = array("Q", number.to_bytes(count * 8, sys.byteorder))
    if sys.byteorder == "little":
        entries.reverse()
    return entries


def _combined(*flags: bytes) -> bytes:
    """The bytes of all flags or-ed together, place by place."""
    number = 0
    for each in flags:
        number |= int.from_bytes(each, "big")
    return number.to_bytes(len(flags[0]), "big")
