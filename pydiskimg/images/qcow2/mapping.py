# SPDX-License-Identifier: MIT
"""From guest offsets to host offsets: the L1 and L2 tables (QEMU docs/interop/qcow2, "Cluster mapping").

A whole table is checked when it is loaded (l2_tables.py), so that its results can be used without further checks.
"""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.cache import Cache
from pydiskimg.images.qcow2.l2_tables import TableReader
from pydiskimg.images.qcow2.runs import DATA, HOLE, MixedRun, Run
from pydiskimg.images.qcow2.runs_in_table import runs_in_table
from pydiskimg.images.qcow2.words import is_zero
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pydiskimg.extents import Extent
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.l2_tables import L2Table
    from pydiskimg.protocols import Source

L1_PIECE = 64 << 10
L1_CACHE = 1 << 20
L2_CACHE = 16 << 20

_NOT_ZERO = b"\0" + b"\1" * 255


class Mapping:
    """An L1 table of a qcow2 file and the L2 tables below it, read on demand.

    It is the active one, or that of a snapshot: then l1_table_offset, l1_size (entries) and size (bytes of the
    virtual disk) are the snapshot's. data_size is the size of the external data file, for an image that has one:
    offsets beyond it are refused; None accepts all offsets there. l2_cache is the number of bytes of cached tables.
    Safe from several threads. Every method, and the constructor, may raise InvalidImageError (a table contradicts the
    specification) and StorageError.
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
        self._l2_tables: Cache[L2Table] = Cache(l2_cache)
        self._reader = TableReader(file, header, data_size=data_size)
        if l1_table_offset is not None:
            self._check_l1_table(header.l1_size if l1_size is None else l1_size)

    def forgive(self, report: Callable[[int, int, InvalidImageError], None]) -> None:
        """From now on, treat clusters whose L2 entries are wrong as zero; report gets offset, length and error."""
        span, size = self.header.l2_span, self.header.cluster_size
        self._reader.forgive(lambda table, index, error: report(table * span + index * size, size, error))

    @property
    def size(self) -> int:
        """Bytes of the virtual disk that is mapped."""
        return self._size

    def extents(self, unit: int = 1) -> Iterator[Extent]:
        """Yield the extents of the virtual disk, in memory that does not depend on its size.

        Subclusters smaller than unit (bytes, a power of two) are combined: unit bytes, or a whole cluster if that is
        less, are DATA if any of them is, otherwise HOLE if any is.
        """
        # imported here: much can be reported without them
        from pydiskimg.images.qcow2.mapping_extents import mapping_extents

        return mapping_extents(self, unit)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """Yield the runs of [offset, offset + length) of the virtual disk, in order."""
        for run in self.coarse_runs(offset, length):
            if isinstance(run, MixedRun):
                from pydiskimg.images.qcow2.mixed_runs import split  # imported here: few images have subclusters

                yield from split(run, self.header.subcluster_size)
            else:
                yield run

    def coarse_runs(self, offset: int, length: int) -> Iterator[Run]:
        """Yield the runs of runs(), but clusters with mixed subclusters as runs of their own kind, MIXED."""
        end = offset + length
        while offset < end:
            index, inside = divmod(offset, self.header.l2_span)
            stop = min(end, (index + 1) * self.header.l2_span)
            table = self.table(index)
            if table is None:
                yield Run(HOLE, offset, stop - offset)
            else:
                yield from runs_in_table(table, self.header, offset, inside, stop)
            offset = stop

    def hosts_of(self, ranges: Iterable[tuple[int, int]]) -> Iterator[int | None]:
        """Yield where each range (offset, length) lies in the file, if all of it is data in a row under one L2 table.

        None stands for one that is not. A table that serves several ranges in a row is looked up once.
        """
        size, span = self.header.cluster_size, self.header.l2_span
        known, table = -1, None
        for offset, length in ranges:
            index, inside = divmod(offset, span)
            if index != known:
                known, table = index, self.table(index)
            if table is None:
                yield None
                continue
            first, end = inside // size, -(-(inside + length) // size)
            if table.kinds[first:end].count(DATA) == end - first and (
                end == first + 1 or table.end_of_neighbours(first, end, size) == end
            ):
                yield table.host(first) + inside % size
            else:
                yield None

    def tables(self, offset: int, length: int) -> Iterator[tuple[int, int, L2Table | None]]:
        """Yield (start, end, table) for each part of [offset, offset + length) that one L2 table maps.

        A range without L2 tables is one part with None, however long it is.
        """
        position, end, span = offset, offset + length, self.header.l2_span
        for index in self.used_l1_indices(offset // span, -(-end // span)):
            table = self.table(index)
            if table is None:
                continue
            start = max(index * span, offset)
            if start > position:
                yield position, start, None
            position = min((index + 1) * span, end)
            yield start, position, table
        if position < end:
            yield position, end, None

    def used_l1_indices(self, start: int = 0, end: int | None = None) -> Iterator[int]:
        """Yield the indices from start to end of the L1 entries that are not zero; runs of zeros are skipped as bytes.

        Each L2 table may belong to one entry only. A small file whose entries share tables would otherwise keep a
        reader busy for the size that it claims.
        """
        entries_in_piece = L1_PIECE // layout.ENTRY_SIZE
        left = self._file.size // self.header.cluster_size
        end = self._l1_entries if end is None else end
        for first in range(start - start % entries_in_piece, end, entries_in_piece):
            piece = self._l1_piece(first // entries_in_piece)
            begin, stop = max(0, start - first), end - first
            # Only the requested part: a layer below is asked once for every hole of the one above it.
            part = piece[begin * layout.ENTRY_SIZE : stop * layout.ENTRY_SIZE]
            if is_zero(part):
                continue
            marks = part.translate(_NOT_ZERO)
            at = marks.find(1)
            while at >= 0:
                index = at // layout.ENTRY_SIZE
                if not left:
                    raise self._invalid(
                        "L1 table", f"it has more L2 tables than the file (0x{self._file.size:x}) holds"
                    )
                left -= 1
                yield first + begin + index
                at = marks.find(1, (index + 1) * layout.ENTRY_SIZE)

    def _l1_piece(self, number: int) -> bytes:
        piece = self._l1_pieces.get(number)
        if piece is None:
            start = number * L1_PIECE
            length = min(L1_PIECE, self._l1_entries * layout.ENTRY_SIZE - start)
            piece = read_bytes(self._file, self._l1_offset + start, length)
            self._l1_pieces.put(number, piece, length)
        return piece

    def table(self, index: int) -> L2Table | None:
        """Return the L2 table of L1 entry index; None if nothing is stored there."""
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

    def _invalid(self, where: str, text: str) -> InvalidImageError:
        return InvalidImageError(f"{self._file.name}: {where}: {text}; the image is truncated or corrupt")
