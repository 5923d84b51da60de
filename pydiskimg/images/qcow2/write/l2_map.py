# SPDX-License-Identifier: MIT
"""The L1 and L2 tables of an image that is being written, and the order in which changes are written.

commit() makes every change so far part of the image, which stays consistent if the machine stops at any moment:

    data, reference counts, new tables   not referred to yet
    -- flush --
    L2 tables                            refer to durable data
    -- flush --
    L1 entries                           refer to L2 tables that are durable
    -- flush --
    lower reference counts               of clusters without references

Between two commits the file's tables do not change: released clusters are not used again before the next one.
"""

from __future__ import annotations

from array import array

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.words import big_endian, numbers
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.images.qcow2.write.l2_words import ALLOCATED, L2Words
from pydiskimg.images.qcow2.write.tables import TableCache
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.runs import Run
    from pydiskimg.images.qcow2.write.refcounts import Refcounts
    from pydiskimg.images.qcow2.write.tables import CachedTable
    from pydiskimg.protocols import Addressable, Store

L2_CACHE = 8 << 20  # for clean and for changed tables each
_NOWHERE = 1 << 64
COPIED = layout.COPIED  # the reference count is one: may be written in place


class GuestMap:
    """The locations of the clusters of the virtual disk. Its caller holds the lock.

    Entries are passed as arrays of 64-bit numbers, as in the specification's "L2 table entry": one for a cluster, or
    two (see words). data_file has the clusters of data, if the image keeps them outside. on_release is called after
    clusters became free. Every method may raise InvalidImageError and StorageError.
    """

    def __init__(
        self,
        store: Store,
        header: Header,
        refcounts: Refcounts,
        *,
        data_file: Addressable | None = None,
        on_release: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._refcounts = refcounts
        self._on_release = on_release
        self.words = L2Words(header)
        self._header = header
        self._data_file = data_file
        self._blank_from = store.size if store.grows else _NOWHERE  # from here on, new clusters read as zero
        self._bits = header.cluster_bits
        self.cluster_size = header.cluster_size
        self.entries_per_table = header.l2_entries
        self._l1_offset = header.l1_table_offset
        raw = bytearray(header.l1_size * layout.ENTRY_SIZE)
        store.read_into(self._l1_offset, raw)
        self._l1 = numbers(raw)
        self._l1_changes: set[int] = set()
        self._l2 = TableCache(store, header.cluster_size, L2_CACHE)
        self._wrong = layout.ENTRY_OFFSET & (header.cluster_size - 1)
        self._wrong |= layout.L2_EXTENDED_RESERVED if header.extended_l2 else layout.L2_STANDARD_RESERVED
        if header.version < 3:
            self._wrong |= layout.L2_ZERO
        self._offset_bits = header.compressed_offset_bits
        self._compressed_at = header.compressed_at
        self._protect_tables()

    @property
    def is_crowded(self) -> bool:
        """True if commit() should be called before further changes."""
        return self._l2.is_crowded or self._refcounts.is_crowded

    @property
    def is_empty(self) -> bool:
        """True if nothing is mapped at all."""
        return not any(self._l1)

    @property
    def l1_size(self) -> int:
        """Entries in the L1 table."""
        return len(self._l1)

    def has_table(self, index: int) -> bool:
        """True if L1 entry index has an L2 table."""
        return bool(self._l1[index] & layout.ENTRY_OFFSET)

    def entries(self, cluster: int, count: int) -> array[int] | None:
        """The entries of guest clusters in one L2 table; None if there is no such table."""
        index, at = divmod(cluster, self.entries_per_table)
        table = self._table(index)
        if table is None:
            return None
        size, step = self._header.l2_entry_size, self.words.step
        found = numbers(table.raw[at * size : (at + count) * size])
        for number in range(0, len(found), step):
            if found[number] or (step > 1 and found[number + 1]):
                self._check(cluster + number // step, found[number], found[number + 1] if step > 1 else 0)
        return found

    def entries_to_write(self, cluster: int, count: int) -> array[int] | None:
        """As entries(); entries to be written in place must not refer to tables of the image itself."""
        found = self.entries(cluster, count)
        if self._data_file is not None:
            return found
        for entry in (found or ())[:: self.words.step]:
            if self.words.is_in_place(entry):
                host = (entry & layout.ENTRY_OFFSET) >> self._bits
                if self._refcounts.metadata.first_of(host, 1) is not None:
                    raise self._corrupt(
                        f"guest data from offset {cluster << self._bits} on is mapped to 0x{host << self._bits:x}, "
                        "where there are tables of the image itself"
                    )
        return found

    def runs(self, cluster: int, entries: array[int] | None, start: int, end: int) -> Iterator[Run]:
        """Yield the runs of [start, end) (bytes) in the clusters from cluster on, which entries map.

        entries is None if nothing is mapped. Clusters with mixed subclusters are MIXED. This may be called without the
        lock.
        """
        from pydiskimg.images.qcow2.runs import HOLE, Run
        from pydiskimg.images.qcow2.runs_in_table import runs_in_table

        if entries is None:
            yield Run(HOLE, start, end - start)
            return
        yield from runs_in_table(self.words.table(entries), self._header, start, start - (cluster << self._bits), end)

    def allocate(self, cluster: int, most: int) -> tuple[int, int, bool]:
        """Allocate 1 to most contiguous host clusters for guest clusters from cluster on.

        Returns (first, number, True if they are known to read as zero).
        """
        if self._data_file is not None:
            return cluster, most, False  # there, each cluster has a fixed location
        end = self._refcounts.end
        first, count = self._refcounts.allocate(most)
        return first, count, first >= end and first << self._bits >= self._blank_from

    def release(self, first: int, count: int) -> None:
        """Release host clusters from allocate()."""
        if self._data_file is None:
            self._refcounts.release(first, count)

    def put(self, cluster: int, new: array[int]) -> None:
        """Map guest clusters, all in one L2 table; their former clusters are released."""
        size, step = self._header.l2_entry_size, self.words.step
        old = self.entries(cluster, len(new) // step)
        if old is None and not any(new):
            return
        index, at = divmod(cluster, self.entries_per_table)
        table = self._table_to_write(index)
        # If a signal interrupts this, a count may be too high, never too low.
        end = at * size + len(new) * layout.ENTRY_SIZE
        table.raw[at * size : end] = big_endian(new[:])
        self._l2.changed(table, at * size, end)
        for number in range(0, len(old or ()), step):
            entry = old[number] if old else 0
            if entry and not _is_same_cluster(entry, new[number]):
                self.let_go(entry)

    def are_unmapped(self, parts: Iterable[tuple[int, int]]) -> bool:
        """True when no entry of parts (cluster, number of clusters), which one L2 table maps, maps anything."""
        size = self._header.l2_entry_size
        for cluster, count in parts:
            index, at = divmod(cluster, self.entries_per_table)
            table = self._table(index)
            if table is None:
                return True
            if any(table.raw[at * size : (at + count) * size]):
                return False
        return True

    def put_new(self, parts: Sequence[tuple[int, int]], first: int) -> None:
        """Map parts (cluster, number of clusters), unmapped and of one L2 table, to host clusters from first on."""
        index, size = parts[0][0] // self.entries_per_table, self._header.l2_entry_size
        raw = big_endian(self.words.data(first, sum(count for _, count in parts)))
        table = self._table_to_write(index)
        done = 0
        for cluster, count in parts:
            at = (cluster - index * self.entries_per_table) * size
            table.raw[at : at + count * size] = raw[done : done + count * size]
            self._l2.changed(table, at, at + count * size)
            done += count * size

    def let_go(self, entry: int) -> None:
        """Release the reference of an L2 entry."""
        if entry & layout.L2_COMPRESSED:
            offset, length = self._compressed_at(entry)
            first = offset >> self._bits
            self._refcounts.release(first, ((offset + length - 1) >> self._bits) - first + 1)
        elif entry & layout.ENTRY_OFFSET and self._data_file is None:
            self._refcounts.release((entry & layout.ENTRY_OFFSET) >> self._bits)

    def compressed_entry(self, offset: int, length: int) -> int | None:
        """The L2 entry of compressed data; None if its host offset is too high for one."""
        if (offset + length) >> self._offset_bits:
            return None
        sectors = (offset + length - 1) // layout.SECTOR - offset // layout.SECTOR
        return layout.L2_COMPRESSED | sectors << self._offset_bits | offset

    def commit(self) -> None:
        """Make all changes part of the image. Lowered reference counts are written by the next one, or by flush()."""
        self._refcounts.write()
        if self._l2.is_changed or self._l1_changes:
            self._store.flush()
            self._l2.write()
            if self._l1_changes:
                self._store.flush()
                self._write_l1()
        if self._refcounts.has_releases:
            self._store.flush()
            self._refcounts.apply_releases()
            self._on_release()

    def flush(self) -> None:
        """Make all changes part of the image, and durable."""
        self.commit()
        while True:
            self._refcounts.write()
            self._store.flush()
            if not self._refcounts.has_releases:
                return
            self._refcounts.apply_releases()
            self._on_release()

    def grow(self, size: int, l1_size: int) -> None:
        """Set the size in the header to size bytes, with l1_size L1 entries or more; durable on return.

        The next commit() frees the clusters of the old L1 table. After an error the L1 table is still the old one, and
        the call may be repeated.
        """
        self.flush()
        if l1_size <= len(self._l1):
            change_header(self._store, size=size)
            self._store.flush()
            return
        old, longer = self._l1_clusters(), self._l1 + array("Q", bytes((l1_size - len(self._l1)) * layout.ENTRY_SIZE))
        offset = self._write_longer_l1(longer)
        # At once: the new size needs the new table.
        change_header(self._store, size=size, l1_size=l1_size, l1_table_offset=offset)
        self._l1, self._l1_offset = longer, offset
        self._store.flush()
        if old is not None:
            self._refcounts.give_up(*old)
            self._refcounts.apply_releases()
            self._on_release()

    def clear_cache(self) -> None:
        """Drop cached data that can be read again."""
        self._l2.clear()
        self._refcounts.clear_cache()

    def _write_longer_l1(self, table: array[int]) -> int:
        """Write an L1 table, not referred to yet, to new clusters, durably; return its offset."""
        length = -(-len(table) * layout.ENTRY_SIZE // self.cluster_size)
        cluster = self._refcounts.allocate_together(length)
        try:
            raw = big_endian(table[:])
            self._store.write(cluster << self._bits, raw.ljust(length << self._bits, b"\0"))
            self._refcounts.write()
            self._store.flush()
            self._refcounts.protect(cluster, length)
        except Exception:
            self._refcounts.release(cluster, length)
            raise
        return cluster << self._bits

    def _protect_tables(self) -> None:
        clusters = self._l1_clusters()
        if clusters is not None:
            self._refcounts.protect(*clusters)
        for entry in self._l1:
            offset = entry & layout.ENTRY_OFFSET
            if offset and offset < self._store.size:  # an invalid one is refused when it is used
                self._refcounts.protect(offset >> self._bits)

    def _l1_clusters(self) -> tuple[int, int] | None:
        length = -(-len(self._l1) * layout.ENTRY_SIZE // self.cluster_size)
        return (self._l1_offset >> self._bits, length) if length else None

    def _write_l1(self) -> None:
        for index in sorted(self._l1_changes):
            entry = self._l1[index].to_bytes(8, "big")
            self._store.write(self._l1_offset + index * layout.ENTRY_SIZE, entry)
        self._l1_changes.clear()

    def _table(self, index: int) -> CachedTable | None:
        entry = self._l1[index]
        offset = entry & layout.ENTRY_OFFSET
        if not offset:
            return None
        if self._l2.holds(offset):
            return self._l2.get(offset)
        if entry & layout.L1_RESERVED or offset % self.cluster_size:
            raise self._corrupt(f"L1 entry {index}: 0x{entry:016x} has reserved bits set or is not aligned")
        if offset + self.cluster_size > self._store.size:
            raise self._corrupt(f"L1 entry {index}: " + self._beyond(f"L2 table offset 0x{offset:x}"))
        return self._l2.get(offset)

    def _table_to_write(self, index: int) -> CachedTable:
        """The L2 table for changes: a new one if there is none, a copy if a snapshot shares it."""
        table = self._table(index)
        if table is not None and self._l1[index] & COPIED:
            return table
        cluster, _ = self._refcounts.allocate(1)
        offset = cluster << self._bits
        new = self._l2.new(offset, bytearray(table.raw if table is not None else self.cluster_size))
        self._refcounts.protect(cluster)
        self._l1[index] = offset | COPIED
        self._l1_changes.add(index)
        if table is not None:
            self._refcounts.release(table.offset >> self._bits)
        return new

    def _check(self, cluster: int, entry: int, bitmap: int) -> None:
        """Refuse an entry that contradicts the specification or refers to bytes that the file does not have."""
        where = f"L2 entry of guest cluster {cluster}"
        if entry & layout.L2_COMPRESSED:
            offset, _ = self._compressed_at(entry)
            if self._data_file is not None or bitmap:
                what = "has subclusters" if bitmap else "lies in an external data file"
                raise self._corrupt(f"{where}: is a compressed cluster that {what}")
        elif entry & self._wrong:
            raise self._corrupt(f"{where}: 0x{entry:016x} has reserved bits set or is not aligned")
        else:
            offset = entry & layout.ENTRY_OFFSET
            self._check_bitmap(where, entry, bitmap)
            if self._data_file is not None:
                self._check_host_offset(where, cluster, entry)
                return
            if entry & layout.L2_ZERO:
                return
        if offset >= self._store.size:
            raise self._corrupt(f"{where}: " + self._beyond(f"cluster offset 0x{offset:x}"))

    def _check_bitmap(self, where: str, entry: int, bitmap: int) -> None:
        if bitmap & bitmap >> layout.SUBCLUSTERS & ALLOCATED:
            raise self._corrupt(f"{where}: the bitmap 0x{bitmap:016x} has subclusters that are allocated and zero")
        if bitmap & ALLOCATED and not self.words.has_host_offset(entry):
            raise self._corrupt(f"{where}: has allocated subclusters, and the cluster has no host offset")

    def _check_host_offset(self, where: str, cluster: int, entry: int) -> None:
        """As in QEMU: otherwise a write to one cluster would change another one."""
        if self.words.has_host_offset(entry) and entry & layout.ENTRY_OFFSET != cluster << self._bits:
            raise self._corrupt(
                f"{where}: is at 0x{entry & layout.ENTRY_OFFSET:x} of the external data file, expected "
                f"0x{cluster << self._bits:x}, as on the disk"
            )

    def _beyond(self, what: str) -> str:
        return f"{what} lies beyond the end of the file (0x{self._store.size:x})"

    def _corrupt(self, text: str) -> InvalidImageError:
        return InvalidImageError(f"{self._store.name}: {text}; the image is truncated or corrupt")


def _is_same_cluster(entry: int, new: int) -> bool:
    """True if a replaced entry refers to the same cluster as the new one."""
    offset = entry & layout.ENTRY_OFFSET
    return bool(offset) and not (entry | new) & layout.L2_COMPRESSED and new & layout.ENTRY_OFFSET == offset
