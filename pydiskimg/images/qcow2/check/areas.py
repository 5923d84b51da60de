# SPDX-License-Identifier: MIT
"""The areas of a qcow2 file besides L2 tables and data: the byte ranges that they take, each checked as far as
possible.

| header | refcount table | L1 table | snapshot table | snapshots' L1 tables | LUKS header | bitmaps |
"""

from __future__ import annotations

from collections import Counter

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmaps import (
    BITMAP_ENTRY,
    BITMAPS,
    MAX_BITMAP_DIRECTORY_SIZE,
    MAX_BITMAPS,
    is_possible_bitmap,
)
from pydiskimg.images.qcow2.check.acceptable import require_acceptable
from pydiskimg.images.qcow2.check.findings import CheckResult
from pydiskimg.images.qcow2.header import Header
from pydiskimg.images.qcow2.refcount_reader import read_padded
from pydiskimg.images.qcow2.words import numbers
from pydiskimg.startup import TYPE_CHECKING, ValueObject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.protocols import Source

REFCOUNT_TABLE = "the refcount table"  # the one area that repairing replaces
SNAPSHOT_EXTRA_DATA_V3 = 16  # bytes that version 3 requires
BITMAP_RESERVED = 0xFF00_0000_0000_01FE  # bits of an entry of a bitmap table
MAX_BITMAP_TABLE_SIZE = 0x800_0000  # entries
PIECE = 1 << 20
SLACK = 1 << 20  # bytes by which tables may overlap before the check becomes too much work


class Area(ValueObject):
    """A byte range of the file that is used times times; what is its name in sentences."""

    def __init__(self, what: str, offset: int, length: int, times: int = 1) -> None:
        self.what = what
        self.offset = offset
        self.length = length
        self.times = times


class L1Table(ValueObject):
    """An L1 table of entries entries that belongs to the active layer, or to times snapshots."""

    def __init__(self, what: str, offset: int, entries: int, times: int = 1) -> None:
        self.what = what
        self.offset = offset
        self.entries = entries
        self.times = times


class Areas:
    """The areas of a qcow2 file, found once; errors in them go into result.

    Raises InvalidImageError if a table's size is not even limited.
    """

    def __init__(self, file: Source, header: Header, result: CheckResult) -> None:
        self._file = file
        self._header = header
        self._result = result
        self._bitmap_bytes = 0
        self.bitmap_tables: list[Area] = []
        self.snapshot_tables: list[L1Table] = []
        self.active_table = L1Table("the L1 table", header.l1_table_offset, header.l1_size)
        self.all = list(self._find())

    def bitmap_clusters(self) -> Iterator[int]:
        """Yield the offset of every cluster of bitmap data in the bitmap tables."""
        for table in self.bitmap_tables:
            for at in range(0, table.length, PIECE):
                for entry in filter(None, self._numbers(table.offset + at, min(PIECE, table.length - at))):
                    offset = entry & layout.ENTRY_OFFSET
                    if offset and not self._is_bad_bitmap_entry(entry):
                        yield offset

    def _find(self) -> Iterator[Area]:
        header, size = self._header, layout.ENTRY_SIZE
        require_acceptable(self._file, header)
        yield Area("the header", 0, header.cluster_size)
        yield Area("the L1 table", header.l1_table_offset, header.l1_size * size)
        tables, table_size = self._snapshots()
        for (offset, entries), times in tables.items():
            yield Area(f"the snapshots' L1 table at 0x{offset:x}", offset, entries * size, times)
        self._keep_snapshot_tables(tables)
        yield Area("the snapshot table", header.snapshots_offset, table_size)
        refcount_table_size = header.refcount_table_clusters * header.cluster_size
        yield Area(REFCOUNT_TABLE, header.refcount_table_offset, refcount_table_size)
        if header.crypt_method == layout.CRYPT_LUKS:
            from pydiskimg.images.qcow2.luks import CRYPTO_HEADER

            pointer = CRYPTO_HEADER.unpack(header.extensions[layout.EXTENSION_CRYPTO])
            yield Area("the encryption header", **pointer)
        if header.has_bitmaps:
            count, _, length, offset = BITMAPS.unpack(header.extensions[layout.EXTENSION_BITMAPS]).values()
            yield from self._bitmaps(count, length, offset)

    def _snapshots(self) -> tuple[Counter[tuple[int, int]], int]:
        """Find the snapshots' L1 tables, (offset, entries), and the bytes of the snapshot table."""
        header, at = self._header, self._header.snapshots_offset
        tables: Counter[tuple[int, int]] = Counter()
        if not header.nb_snapshots:
            return tables, 0
        from pydiskimg.images.qcow2.snapshots import MAX_EXTRA_DATA, MAX_TABLE_SIZE, SNAPSHOT

        for index in range(header.nb_snapshots):
            entry = SNAPSHOT.unpack(read_padded(self._file, at, SNAPSHOT.size))
            offset, entries, extra_size = entry["l1_table_offset"], entry["l1_size"], entry["extra_data_size"]
            if extra_size > MAX_EXTRA_DATA:
                raise self._invalid(f"snapshot {index}", at, f"has {extra_size} bytes of extra data")
            if header.version >= 3 and extra_size < SNAPSHOT_EXTRA_DATA_V3:
                text = f"snapshot {index}: its entry at 0x{at:x} is incomplete"
                self._result.add_corruption(text, is_repairable=True)
            at += -(-(SNAPSHOT.size + extra_size + entry["id_str_size"] + entry["name_size"]) // 8) * 8
            if at - header.snapshots_offset > MAX_TABLE_SIZE:
                raise self._invalid("the snapshot table", header.snapshots_offset, "is longer than 64 MiB")
            if self._is_good_l1_table(index, offset, entries):
                tables[offset, entries] += 1
        if header.has_data_file:
            self._result.add_corruption("an image with an external data file has internal snapshots")
        return tables, at - header.snapshots_offset

    def _is_good_l1_table(self, index: int, offset: int, entries: int) -> bool:
        if offset % self._header.cluster_size:
            self._result.add_corruption(f"snapshot {index}: its L1 table at 0x{offset:x} is not cluster-aligned")
        elif entries * layout.ENTRY_SIZE > layout.MAX_L1_TABLE_SIZE:
            self._result.add_corruption(f"snapshot {index}: its L1 table is too large, it has {entries} entries")
        else:
            return True
        return False

    def _keep_snapshot_tables(self, tables: Counter[tuple[int, int]]) -> None:
        """Different L1 tables have separate clusters: tables with more bytes than the file has are not walked.

        The part of a table beyond the end of the file is zero, and need not be walked either.
        """
        left = self._file.size + SLACK
        for (offset, entries), times in tables.items():
            inside = max(0, min(entries, -(-(self._file.size - offset) // layout.ENTRY_SIZE)))
            left -= inside * layout.ENTRY_SIZE
            if left < 0:
                self._result.add_check_error("the snapshots' L1 tables overlap; not all of them were checked")
                return
            self.snapshot_tables.append(L1Table(f"the snapshots' L1 table at 0x{offset:x}", offset, inside, times))

    def _bitmaps(self, count: int, size: int, offset: int) -> Iterator[Area]:
        cluster_size = self._header.cluster_size
        if (
            not 0 < count <= MAX_BITMAPS
            or not 0 < size <= MAX_BITMAP_DIRECTORY_SIZE
            or offset % cluster_size
            or not offset
        ):
            raise self._invalid("the bitmap directory", offset, f"cannot have {count} bitmaps in {size} bytes")
        yield Area("the bitmap directory", offset, size)
        directory, at, found = read_padded(self._file, offset, size), 0, 0
        while at + BITMAP_ENTRY.size <= size:
            entry = BITMAP_ENTRY.unpack(directory, at)
            table, entries = entry["bitmap_table_offset"], entry["bitmap_table_size"]
            if not is_possible_bitmap(self._header, entry) or not self._is_good_bitmap_table(offset, table, entries):
                break
            at += -(-(BITMAP_ENTRY.size + entry["extra_data_size"] + entry["name_size"]) // 8) * 8
            found += 1
            area = Area(f"the bitmap table at 0x{table:x}", table, entries * layout.ENTRY_SIZE)
            self.bitmap_tables.append(area)
            self._check_bitmap_table(area)
            yield area
        if at != size or found != count:
            self._result.add_corruption(
                f"the bitmap directory at 0x{offset:x} has {found} readable entries that end at byte {at}, expected "
                f"{count} that end at byte {size}"
            )
            raise self._invalid("the bitmap directory", offset, "cannot be followed")

    def _is_good_bitmap_table(self, directory: int, offset: int, entries: int) -> bool:
        """False also when the tables together are longer than the file, so that they must overlap."""
        self._bitmap_bytes += entries * layout.ENTRY_SIZE
        if offset % self._header.cluster_size or not offset or not 0 < entries <= MAX_BITMAP_TABLE_SIZE:
            return False
        if self._bitmap_bytes > self._file.size:
            raise self._invalid("the bitmap directory", directory, "names tables that are longer than the file")
        return True

    def _check_bitmap_table(self, table: Area) -> None:
        for at in range(0, table.length, PIECE):
            for entry in filter(None, self._numbers(table.offset + at, min(PIECE, table.length - at))):
                if self._is_bad_bitmap_entry(entry):
                    self._result.add_corruption(f"{table.what}: the entry 0x{entry:016x} is not valid")

    def _is_bad_bitmap_entry(self, entry: int) -> bool:
        offset = entry & layout.ENTRY_OFFSET
        if entry & BITMAP_RESERVED or offset % self._header.cluster_size:
            return True
        return bool(offset and entry & 1)

    def _numbers(self, offset: int, length: int) -> Iterator[int]:
        return iter(numbers(read_padded(self._file, offset, length)))

    def _invalid(self, what: str, offset: int, text: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._file.name}: {what} at 0x{offset:x} {text}; the image is corrupt and was not checked"
        )
