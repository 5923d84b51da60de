# SPDX-License-Identifier: MIT
"""The reference counts of the file's clusters, by which clusters are allocated and released.

    refcount table   | block | block |   0   | block | ...        grows by moving to more clusters
                         |       |
    refcount block   | 1 1 1 2 0 1 ... |  one entry for each cluster of the file

Whenever the machine stops, a count in the file may be too high, which wastes a cluster, but never too low. Counts are
therefore raised before a cluster is referred to, and lowered only when the file has no reference to it any more:
release() takes notes, and its caller calls apply_releases() at that point.
"""

from __future__ import annotations

import errno
from array import array

from pydiskimg.errors import InvalidImageError, StorageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import Header
from pydiskimg.images.qcow2.words import big_endian, nonzero, numbers
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.images.qcow2.write.refcount_entries import RefcountEntries
from pydiskimg.images.qcow2.write.tables import CachedTable, TableCache
from pydiskimg.protocols import Store
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_CACHE = 8 << 20  # for clean and for changed blocks each
MOST_RELEASES = 100_000  # noted runs of clusters
_OFFSET = 0xFFFF_FFFF_FFFF_FE00
_MOST_CLUSTERS = 1 << 56  # bytes: the limit of an L2 entry
# One bit each: at most 64 MiB, and only if an image has a table so far from its start (32 TiB for clusters of 64 KiB).
MOST_METADATA_CLUSTERS = 1 << 29


class Refcounts:
    """The reference counts of an image that is being written; its caller holds the lock.

    Clusters are numbered by their offset in the file. Free clusters are found without searching the image for each: the
    counts at opening are searched once, and released clusters are recorded by block. Every method may raise
    InvalidImageError (the refcounts contradict the specification or the file) and StorageError.
    """

    def __init__(self, store: Store, header: Header) -> None:
        self._store = store
        self._cluster_bits = header.cluster_bits
        self._cluster_size = header.cluster_size
        self._entries = RefcountEntries(header.refcount_order)
        self._per_block = self._entries.per_block(header.cluster_size)
        self._blocks = TableCache(store, header.cluster_size, BLOCK_CACHE)
        self._table_offset = header.refcount_table_offset
        self._table_clusters = header.refcount_table_clusters
        self._table = self._read_table()
        self._table_changes: set[int] = set()
        self._moved_from: tuple[int, int] | None = None
        self._releases: list[tuple[int, int]] = []
        self._holes: dict[int, int] = {}  # maps a block to its first entry that may be zero
        self.metadata = MetadataClusters()
        self._end = self._given_end = 0
        self.protect(0)
        self.protect(self._table_offset >> self._cluster_bits, self._table_clusters)
        if header.nb_snapshots:
            self.protect(header.snapshots_offset >> self._cluster_bits)
        self._end = self._find_end()
        self._unscanned = 0
        self._to_scan = -(-self._end // self._per_block)

    @property
    def largest(self) -> int:
        """The highest count that the width of an entry allows."""
        return self._entries.largest

    @property
    def end(self) -> int:
        """The first cluster after all that were allocated since the image was opened."""
        return self._given_end

    @property
    def is_crowded(self) -> bool:
        """True if so many changes are pending that they should be written."""
        return self._blocks.is_crowded or len(self._releases) >= MOST_RELEASES

    @property
    def has_releases(self) -> bool:
        """True if there are notes for apply_releases()."""
        return bool(self._releases)

    def protect(self, cluster: int, count: int = 1) -> None:
        """Never allocate these clusters, even if their counts are zero: they contain tables of the image, one each."""
        shared = self.metadata.first_of(cluster, count)
        if shared is not None:
            raise self._corrupt(f"two tables of the image are at 0x{shared << self._cluster_bits:x}")
        self.metadata.add(cluster, count)
        self._end = max(self._end, cluster + count)

    def give_up(self, cluster: int, count: int) -> None:
        """Release clusters of a table that has moved, and stop protecting them."""
        self.metadata.discard(cluster, count)
        self.release(cluster, count)

    def give_back(self, cluster: int, count: int) -> None:
        """Make holes in the file for the free ones of count clusters; the file must not refer to them any more,
        durably.
        """
        for first, number in self.free_runs(cluster, count):
            self._store.discard(first << self._cluster_bits, number << self._cluster_bits)

    def free_runs(self, cluster: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield (first, number) of the free ones of count clusters."""
        end = min(cluster + count, self._end)
        while cluster < end:
            number, index = divmod(cluster, self._per_block)
            stop = min(self._per_block, index + end - cluster)
            if number < len(self._table) and self._table[number]:
                first, free, done = self._first_free(cluster, index, stop)
            else:
                first, free, done = cluster, stop - index, stop - index
            if free:
                yield first, free
            cluster += done

    def _first_free(self, cluster: int, index: int, stop: int) -> tuple[int, int, int]:
        """The first free clusters of a block from index on: (first, number), and how many entries were processed."""
        raw = self._block(cluster // self._per_block).raw
        start = self._entries.first_zero(raw, index)
        if start >= stop:
            return cluster, 0, stop - index
        free = self._entries.zeros_from(raw, start, stop - start)
        first = cluster + start - index
        table = self.metadata.first_of(first, free)  # in a damaged image
        kept = free if table is None else table - first
        return first, kept, start - index + max(kept, 1)

    def get(self, cluster: int) -> int:
        """The count of a cluster."""
        number, index = divmod(cluster, self._per_block)
        if number >= len(self._table) or not self._table[number]:
            return 0
        return self._entries.get(self._block(number).raw, index)

    def allocate(self, most: int) -> tuple[int, int]:
        """Allocate 1 to most contiguous free clusters, each counted once; return (first, number)."""
        first, count = self._hole(most) or self._at_end(most)
        self._set(first, count, 1)
        return first, count

    def allocate_at_end(self, most: int) -> tuple[int, int]:
        """As allocate(), but after all clusters that were ever in use."""
        first, count = self._at_end(most)
        self._set(first, count, 1)
        return first, count

    def allocate_together(self, count: int) -> int:
        """Allocate count contiguous clusters, each counted once; return the first."""
        blocks: list[int] = []
        while True:
            first = self._end // self._per_block
            last = (self._end + len(blocks) + count - 1) // self._per_block
            if last >= len(self._table):
                self._grow_table(last + 1)
                blocks = []
                continue
            needed = [number for number in range(first, last + 1) if not self._table[number]]
            if len(needed) <= len(blocks):
                break
            blocks = needed
        cluster = self._end
        self._check_end(cluster + len(blocks) + count)
        for number in blocks:
            self._make_block(number, cluster)
            cluster += 1
        self._end = cluster + count
        for number in range(cluster - len(blocks), cluster):
            self._set(number, 1, 1)
        self._set(cluster, count, 1)
        return cluster

    def increase(self, cluster: int, amount: int) -> None:
        """Raise the count of a cluster by amount; the caller has checked that it does not exceed largest."""
        self._set(cluster, 1, self.get(cluster) + amount)

    def release(self, cluster: int, count: int = 1) -> None:
        """Note that the counts of count clusters are to be lowered by one when apply_releases() is called."""
        if self._releases:
            first, number = self._releases[-1]
            if first + number == cluster:
                self._releases[-1] = first, number + count
                return
        self._releases.append((cluster, count))

    def apply_releases(self) -> None:
        """Lower the noted counts: the file has no reference to those clusters any more, as often as noted."""
        releases, self._releases = self._releases, []
        for first, number in releases:
            cluster, count = first, number
            while count:
                some = min(count, self._per_block - cluster % self._per_block)
                self._lower(cluster, some)
                cluster, count = cluster + some, count - some
            if self._blocks.is_crowded:
                self._write_blocks()

    def write(self) -> None:
        """Write the counts, with a flush if one part must precede another; not durable on return."""
        self._blocks.write()
        if not self._table_changes and self._moved_from is None:
            return
        self._store.flush()  # a block before the entry that refers to it
        if self._moved_from is not None:
            self._write_moved_table()
        else:
            for number in self._table_changes:
                entry = self._table[number].to_bytes(8, "big")
                self._store.write(self._table_offset + number * layout.ENTRY_SIZE, entry)
        self._table_changes.clear()

    def clear_cache(self) -> None:
        """Drop cached data that can be read again."""
        self._blocks.clear()

    def _read_table(self) -> array[int]:
        size = self._table_clusters << self._cluster_bits
        if self._table_offset + size > self._store.size:
            raise self._corrupt(f"the refcount table at 0x{self._table_offset:x} ends beyond the end of the file")
        raw = bytearray(size)
        self._store.read_into(self._table_offset, raw)
        return numbers(raw)

    def _find_end(self) -> int:
        """The first cluster after the last counted one, and after all of the tables."""
        last = -1
        empty: set[int] = set()
        for number in reversed([*nonzero(self._table)]):
            offset = self._table[number]
            if last < 0 and offset not in empty:
                index = self._entries.last_used(self._block(number).raw)
                last = number * self._per_block + index if index >= 0 else -1
                empty.add(offset)
            if offset < self._store.size:  # an invalid one is refused when it is used
                self.protect(offset >> self._cluster_bits)
        end = max(self._end, last + 1)
        # A machine that stops leaves a few beyond the end. New clusters go after them all: otherwise a small file with
        # a wrong count for its far end would become a huge one.
        if (end - self._per_block) << self._cluster_bits > self._store.size:
            raise self._corrupt(
                f"clusters up to 0x{end << self._cluster_bits:x} are counted as used, and the file ends at "
                f"0x{self._store.size:x}"
            )
        return end

    def _block(self, number: int) -> CachedTable:
        offset = self._table[number]
        if not offset or offset & ~_OFFSET or offset % self._cluster_size:
            raise self._corrupt(f"refcount table entry {number}: 0x{offset:016x} is not the offset of a cluster")
        if offset + self._cluster_size > self._store.size and not self._blocks.holds(offset):
            raise self._corrupt(
                f"refcount table entry {number}: refcount block offset 0x{offset:x} lies beyond the end of the file "
                f"(0x{self._store.size:x})"
            )
        return self._blocks.get(offset)

    def _block_to_change(self, number: int) -> CachedTable:
        return self._block(number)

    def _set(self, cluster: int, count: int, value: int) -> None:
        """Set the counts of clusters, which have blocks, to one value."""
        self._given_end = max(self._given_end, cluster + count)
        while count:
            number, index = divmod(cluster, self._per_block)
            some = min(count, self._per_block - index)
            block = self._block_to_change(number)
            self._entries.fill(block.raw, index, some, value)
            self._blocks.changed(block, *self._entries.span(index, some))
            cluster, count = cluster + some, count - some

    def _lower(self, cluster: int, count: int) -> None:
        """Lower the counts of clusters of one block by one."""
        number, index = divmod(cluster, self._per_block)
        if number >= len(self._table) or not self._table[number]:
            raise self._wrong(cluster)
        block = self._block_to_change(number)
        freed = index
        if self._entries.are(block.raw, index, count, 1):
            self._entries.fill(block.raw, index, count, 0)
        else:
            freed = self._lower_each(block, number, index, count)
        self._blocks.changed(block, *self._entries.span(index, count))
        if freed < index + count:
            self._holes[number] = min(self._holes.get(number, freed), freed)

    def _lower_each(self, block: CachedTable, number: int, index: int, count: int) -> int:
        """Return the first entry that became zero, index + count if there is none."""
        freed = index + count
        for at in range(index, index + count):
            value = self._entries.get(block.raw, at)
            if not value:
                raise self._wrong(number * self._per_block + at)
            self._entries.put(block.raw, at, value - 1)
            if value == 1:
                freed = min(freed, at)
        return freed

    def _hole(self, most: int) -> tuple[int, int] | None:
        """Free clusters before the end that are not allocated yet."""
        while True:
            if self._holes:
                number, start = next(iter(self._holes.items()))
            elif self._unscanned < self._to_scan:
                number, start = self._unscanned, 0
                self._unscanned += 1
            else:
                return None
            found = self._hole_in(number, start, most)
            if found is not None:
                return found
            self._holes.pop(number, None)

    def _hole_in(self, number: int, start: int, most: int) -> tuple[int, int] | None:
        if number >= len(self._table) or not self._table[number]:
            return None
        raw = self._block(number).raw
        base = number * self._per_block
        index = self._entries.first_zero(raw, start)
        while index < self._per_block and base + index < self._end:
            count = self._entries.zeros_from(raw, index, min(most, self._end - base - index))
            table = self.metadata.first_of(base + index, count)
            if table != base + index:
                self._holes[number] = index
                return base + index, count if table is None else table - base - index
            index = self._entries.first_zero(raw, index + 1)
        return None

    def _at_end(self, most: int) -> tuple[int, int]:
        """Free clusters at the end; if no block counts those yet, one is made there first."""
        while True:
            number = self._end // self._per_block
            if number >= len(self._table):
                self._grow_table(number + 1)
            elif not self._table[number]:
                self._check_end(self._end + 1)
                self._make_block(number, self._end)
                self._end += 1
                self._set(self._end - 1, 1, 1)
            else:
                break
        first = self._end
        count = min(most, self._per_block - first % self._per_block)
        self._check_end(first + count)
        self._end = first + count
        return first, count

    def _make_block(self, number: int, cluster: int) -> None:
        offset = cluster << self._cluster_bits
        self._blocks.new(offset, bytearray(self._cluster_size))
        self._table[number] = offset
        self._table_changes.add(number)
        self.metadata.add(cluster)

    def _grow_table(self, needed: int) -> None:
        """Allocate clusters for a table of at least twice the entries; it is written with the next write()."""
        entries_in_cluster = self._cluster_size // layout.ENTRY_SIZE
        wanted = max(2 * len(self._table), needed + needed // 8 + 2)
        clusters = -(-wanted // entries_in_cluster)
        most = layout.MAX_REFCOUNT_TABLE_SIZE // self._cluster_size
        if clusters > most:
            clusters = most
            if needed >= clusters * entries_in_cluster:
                largest = clusters * entries_in_cluster * self._per_block << self._cluster_bits
                raise StorageError(
                    f"{self._store.name}: the image file would be larger than {format_bytes(largest)}, the most that "
                    f"clusters of {self._cluster_size} bytes can count; use a larger cluster size",
                    errno=errno.EFBIG,
                    filename=self._store.name,
                )
        old = self._table_offset >> self._cluster_bits, self._table_clusters
        longer = self._table + array("Q", bytes((clusters * entries_in_cluster - len(self._table)) * layout.ENTRY_SIZE))
        self._table, shorter = longer, self._table
        try:
            cluster = self.allocate_together(clusters)
        except BaseException:
            # An entry beyond the end of the present table must not be written.
            self._table = shorter
            self._table_changes = {number for number in self._table_changes if number < len(shorter)}
            raise
        if self._moved_from is None:
            self._moved_from = old
        else:
            self.give_up(*old)  # it was never referred to
        self._table_offset, self._table_clusters = cluster << self._cluster_bits, clusters
        self.protect(cluster, clusters)

    def _write_moved_table(self) -> None:
        self._store.write(self._table_offset, big_endian(self._table[:]))
        self._store.flush()
        change_header(
            self._store,
            refcount_table_offset=self._table_offset,
            refcount_table_clusters=self._table_clusters,
        )
        self._store.flush()
        assert self._moved_from is not None
        first, count = self._moved_from
        self._moved_from = None
        self.give_up(first, count)

    def _write_blocks(self) -> None:
        """Changed counts may be written at any time, as long as no new block is among them."""
        if not self._table_changes:
            self._blocks.write()

    def _check_end(self, end: int) -> None:
        if end << self._cluster_bits > _MOST_CLUSTERS:
            raise StorageError(
                f"{self._store.name}: the image file would end beyond 2^56 bytes, the most that its tables can name",
                errno=errno.EFBIG,
                filename=self._store.name,
            )

    def _wrong(self, cluster: int) -> InvalidImageError:
        return self._corrupt(
            f"the cluster at 0x{cluster << self._cluster_bits:x} is in use and has a reference count of 0"
        )

    def _corrupt(self, text: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._store.name}: {text}; the image is truncated or corrupt: repair it with: pydiskimg check -r all"
        )


class MetadataClusters:
    """The clusters of an image's own tables: a guest's data are never written there, even if an entry says so.

    It has one bit for each. Clusters from MOST_METADATA_CLUSTERS on are not recorded.
    """

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, cluster: int, count: int = 1) -> None:
        """Record count clusters."""
        end = min(cluster + count, MOST_METADATA_CLUSTERS)
        if end >> 3 >= len(self._bits) and end > cluster:
            self._bits.extend(bytes((end >> 3) + 1 - len(self._bits)))
        for each in range(cluster, end):
            self._bits[each >> 3] |= 1 << (each & 7)

    def discard(self, cluster: int, count: int = 1) -> None:
        """Remove count clusters."""
        for each in range(cluster, min(cluster + count, len(self._bits) << 3)):
            self._bits[each >> 3] &= ~(1 << (each & 7))

    def first_of(self, cluster: int, count: int) -> int | None:
        """The first of count clusters that is recorded."""
        if not any(self._bits[cluster >> 3 : (cluster + count + 7) >> 3]):
            return None
        for each in range(cluster, min(cluster + count, len(self._bits) << 3)):
            if self._bits[each >> 3] >> (each & 7) & 1:
                return each
        return None
