# SPDX-License-Identifier: MIT
"""From guest offsets to host offsets: the L1 and L2 tables (QEMU docs/interop/qcow2, "Cluster mapping").

A table is checked whole when it is loaded (l2_tables.py), so that what comes out of here can be used as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.formats.qcow2 import layout
from pydiskimg.formats.qcow2.cache import Cache
from pydiskimg.formats.qcow2.header import Header
from pydiskimg.formats.qcow2.l2_tables import COMPRESSED, DATA, HOLE, MIXED, ZERO, Table, TableReader, subcluster_runs
from pydiskimg.protocols import Source, read_bytes

__all__ = ["COMPRESSED", "DATA", "HOLE", "ZERO", "Mapping", "Run"]

L1_PIECE = 64 << 10
L1_CACHE = 1 << 20
L2_CACHE = 16 << 20

_EXTENT_KINDS = {HOLE: Kind.HOLE, ZERO: Kind.ZERO, DATA: Kind.DATA, COMPRESSED: Kind.DATA}
_EXTENTS = re.compile(b"H+|Z+|[DC]+|M")
_SAME_KIND = {HOLE: re.compile(b"H+"), ZERO: re.compile(b"Z+"), DATA: re.compile(b"D+")}
_NOT_ZERO = re.compile(rb"[^\0]")


class Run:
    """Bytes [start, start + length) of the guest that are found in one place.

    kind is HOLE, ZERO, DATA or COMPRESSED. host is the offset of the first byte (DATA) in the file, or in the
    external data file of an image that has one; or that of the compressed data of the one cluster the run lies in
    (COMPRESSED), which has host_length bytes at most.
    """

    # By hand: a frozen dataclass takes three times as long to make, and its module as long to import as all of this.
    __slots__ = ("host", "host_length", "kind", "length", "start")

    def __init__(self, kind: int, start: int, length: int, host: int = 0, host_length: int = 0) -> None:
        self.kind = kind
        self.start = start
        self.length = length
        self.host = host
        self.host_length = host_length

    def __repr__(self) -> str:
        return f"Run({self.kind}, {self.start}, {self.length}, {self.host}, {self.host_length})"


class Mapping:
    """One L1 table of a qcow2 file and the L2 tables below it, read as they are needed.

    It is the active one, or that of a snapshot: then l1_table_offset, l1_size (entries) and size (bytes of the
    virtual disk) are the snapshot's. data_size is the size of the external data file, for an image that has one:
    offsets beyond it are refused; None refuses no offset there. l2_cache is the bytes of tables that are kept.

    Safe from several threads. Every method, and the constructor, may raise InvalidImageError (a table contradicts
    the specification) and StorageError.
    """

    def __init__(
        self,
        file: Source,
        header: Header,
        *,
        l1_table_offset: int | None = None,
        l1_size: int | None = None,
        size: int | None = None,
        data_size: int | None = None,
        l2_cache: int = L2_CACHE,
    ) -> None:
        self._file = file
        self.header = header
        self._size = header.size if size is None else size
        self._l1_offset = header.l1_table_offset if l1_table_offset is None else l1_table_offset
        self._l1_entries = -(-self._size // header.l2_span)
        self._l1_pieces: Cache[bytes] = Cache(L1_CACHE)
        self._l2_tables: Cache[Table] = Cache(l2_cache)
        self._reader = TableReader(file, header, data_size=data_size)
        self.compressed_at = self._reader.compressed_at
        if l1_table_offset is not None:
            self._check_l1_table(header.l1_size if l1_size is None else l1_size)

    @property
    def size(self) -> int:
        """Bytes of the virtual disk that is mapped."""
        return self._size

    def extents(self) -> Iterator[Extent]:
        """Yield the extents of the virtual disk, in memory that does not depend on its size."""
        return merged(self._pieces())

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """Yield the runs that [offset, offset + length) of the virtual disk consists of, in order."""
        end = offset + length
        while offset < end:
            index, inside = divmod(offset, self.header.l2_span)
            stop = min(end, (index + 1) * self.header.l2_span)
            table = self._table(index)
            if table is None:
                yield Run(HOLE, offset, stop - offset)
            else:
                yield from self._runs_in_table(table, offset, inside, stop)
            offset = stop

    def tables(self, offset: int, length: int) -> Iterator[tuple[int, int, Table | None]]:
        """Yield (start, end, table) for the parts of [offset, offset + length) that one L2 table maps each.

        What has no L2 table comes as one part with None, however long it is.
        """
        position, end, span = offset, offset + length, self.header.l2_span
        for index in self._used_l1_indices(offset // span, -(-end // span)):
            table = self._table(index)
            if table is None:
                continue
            start = max(index * span, offset)
            if start > position:
                yield position, start, None
            position = min((index + 1) * span, end)
            yield start, position, table
        if position < end:
            yield position, end, None

    def _pieces(self) -> Iterator[Extent]:
        size, span, cluster_size = self._size, self.header.l2_span, self.header.cluster_size
        position = 0
        for index in self._used_l1_indices():
            table = self._table(index)
            if table is None:
                continue
            yield Extent(position, index * span - position, Kind.HOLE)
            position = index * span
            for found in _EXTENTS.finditer(table.kinds):
                if position >= size:
                    return
                kind = found.group()[0]
                if kind == MIXED:
                    yield from self._mixed_pieces(table, found.start(), position)
                    position = min(position + cluster_size, size)
                    continue
                length = min((found.end() - found.start()) * cluster_size, size - position)
                yield Extent(position, length, _EXTENT_KINDS[kind])
                position += length
        yield Extent(position, size - position, Kind.HOLE)

    def _mixed_pieces(self, table: Table, index: int, position: int) -> Iterator[Extent]:
        unit = self.header.subcluster_size
        for kind, first, count in subcluster_runs(table.bitmap(index)):
            start = position + first * unit
            if start >= self._size:
                return
            yield Extent(start, min(count * unit, self._size - start), _EXTENT_KINDS[kind])

    def _used_l1_indices(self, start: int = 0, end: int | None = None) -> Iterator[int]:
        """Indices from start to end of the L1 entries that are not zero, runs of zeros being skipped as bytes.

        An L2 table stands under one entry only. A small file whose entries share tables would otherwise keep a
        reader busy for as long as the size that it claims.
        """
        entries_in_piece = L1_PIECE // layout.ENTRY_SIZE
        left = self._file.size // self.header.cluster_size
        end = self._l1_entries if end is None else end
        for first in range(start - start % entries_in_piece, end, entries_in_piece):
            piece = self._l1_piece(first // entries_in_piece)
            at, stop = max(0, start - first) * layout.ENTRY_SIZE, (end - first) * layout.ENTRY_SIZE
            # Only what was asked for: a layer below is asked once for every hole of the one above it.
            if not piece[at:stop].strip(b"\0"):
                continue
            while found := _NOT_ZERO.search(piece, at, stop):
                index = found.start() // layout.ENTRY_SIZE
                if not left:
                    raise self._invalid(
                        "L1 table", f"it has more L2 tables than the file (0x{self._file.size:x}) holds"
                    )
                left -= 1
                yield first + index
                at = (index + 1) * layout.ENTRY_SIZE

    def _l1_piece(self, number: int) -> bytes:
        piece = self._l1_pieces.get(number)
        if piece is None:
            start = number * L1_PIECE
            length = min(L1_PIECE, self._l1_entries * layout.ENTRY_SIZE - start)
            piece = read_bytes(self._file, self._l1_offset + start, length)
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
            table = self._reader.read(index, offset)
            self._l2_tables.put(offset, table, table.memory)
        return table

    def _check_l1_table(self, l1_size: int) -> None:
        """Check what read_header() has checked of the active table."""
        offset, length = self._l1_offset, l1_size * layout.ENTRY_SIZE
        where = f"L1 table of {l1_size} entries at 0x{offset:x}"
        if length > layout.MAX_L1_TABLE_SIZE:
            raise self._invalid(where, f"at most {layout.MAX_L1_TABLE_SIZE // layout.ENTRY_SIZE} entries are allowed")
        if l1_size < self._l1_entries:
            raise self._invalid(where, f"a virtual size of {self._size} bytes needs {self._l1_entries} entries")
        if length and (offset % self.header.cluster_size or offset < self.header.cluster_size):
            raise self._invalid(where, "the offset is that of the header, or is not aligned")
        if length and offset + length > self._file.size:
            raise self._invalid(where, f"it ends beyond the end of the file (0x{self._file.size:x})")

    def _check_l1_entry(self, index: int, entry: int) -> int:
        offset = entry & layout.ENTRY_OFFSET
        if entry & layout.L1_RESERVED or offset % self.header.cluster_size:
            raise self._invalid(f"L1 entry {index}", f"0x{entry:016x} has reserved bits set or is not aligned")
        if offset and offset + self.header.cluster_size > self._file.size:
            text = f"L2 table offset 0x{offset:x} lies beyond the end of the file (0x{self._file.size:x})"
            raise self._invalid(f"L1 entry {index}", text)
        return offset

    def _runs_in_table(self, table: Table, offset: int, inside: int, stop: int) -> Iterator[Run]:
        """inside is offset's distance from the start of what the table maps; stop is not beyond its end."""
        cluster_size = self.header.cluster_size
        last = inside + (stop - offset) - 1
        index, end_index = inside // cluster_size, last // cluster_size + 1
        while index < end_index:
            kind = table.kinds[index]
            after = self._end_of_run(table, index, end_index)
            skip = offset % cluster_size
            length = min((after - index) * cluster_size - skip, stop - offset)
            if kind == DATA:
                yield Run(kind, offset, length, table.host(index) + skip)
            elif kind == COMPRESSED:
                yield Run(kind, offset, length, *self.compressed_at(table.entry(index)))
            elif kind == MIXED:
                yield from self._runs_in_cluster(table, index, offset, offset + length)
            else:
                yield Run(kind, offset, length)
            offset += length
            index = after

    def _runs_in_cluster(self, table: Table, index: int, offset: int, stop: int) -> Iterator[Run]:
        """The runs of [offset, stop), which lies in one cluster whose subclusters differ."""
        unit = self.header.subcluster_size
        cluster = offset - offset % self.header.cluster_size
        host = table.host(index)
        for kind, first, count in subcluster_runs(table.bitmap(index)):
            start = max(cluster + first * unit, offset)
            end = min(cluster + (first + count) * unit, stop)
            if start < end:
                yield Run(kind, start, end - start, host + start - cluster if kind == DATA else 0)

    def _end_of_run(self, table: Table, index: int, end_index: int) -> int:
        """The first index after index whose cluster does not continue it: in the guest, and for DATA in the file."""
        kind = table.kinds[index]
        if kind in (COMPRESSED, MIXED):
            return index + 1
        same = _SAME_KIND[kind].match(table.kinds, index, end_index)
        end = same.end() if same else index + 1
        return table.end_of_neighbours(index, end, self.header.cluster_size) if kind == DATA else end

    def _invalid(self, where: str, text: str) -> InvalidImageError:
        return InvalidImageError(f"{self._file.name}: {where}: {text}; the image is truncated or corrupt")
