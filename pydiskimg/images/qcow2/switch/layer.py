# SPDX-License-Identifier: MIT
"""An L1 table and the L2 tables below it: their references, and their copied flags."""

from __future__ import annotations

from array import array

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.l2_tables import TableReader
from pydiskimg.images.qcow2.words import big_endian, nonzero, numbers
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.cache import Cache
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.switch.counts import SwitchedRefcounts
    from pydiskimg.protocols import Store


class DiskLayer:
    """The active layer, or that of a snapshot: an L1 table at offset in the file, with a number of entries.

    what is its name in messages, and kept has the L2 tables of all layers. Reading it raises InvalidImageError for a
    table that contradicts the specification.
    """

    def __init__(
        self, store: Store, header: Header, offset: int, entries: int, *, what: str, kept: Cache[array[int]]
    ) -> None:
        self.offset = offset
        self._store = store
        self._header = header
        self._what = what
        self._kept = kept
        self._reader = TableReader(store, header, data_size=None)  # type: ignore[arg-type]
        self.l1 = self._read_l1(entries)

    @property
    def l1_clusters(self) -> tuple[int, int]:
        """(first, number) of the clusters that the L1 table takes."""
        return self.offset >> self._header.cluster_bits, l1_length(self._header, len(self.l1))

    def tables(self) -> Iterator[tuple[int, int]]:
        """Yield (index, cluster) of each L2 table."""
        for index, entry in enumerate(self.l1):
            if entry:
                yield index, entry >> self._header.cluster_bits

    def table(self, index: int) -> array[int]:
        """The words of the L2 table of L1 entry index: entries, each followed by its bitmap in extended tables.

        The caller may change them.
        """
        offset = self.l1[index]
        words = self._kept.get(offset)
        if words is None:
            words = self._reader.read(index, offset).words
            self._kept.put(offset, words, len(words) * layout.ENTRY_SIZE)
        return words[:]

    def references(self, index: int) -> Iterator[tuple[int, int]]:
        """Yield (first cluster, number) of the references of the L2 table of L1 entry index."""
        return references(self.table(index), self._header)

    def own(self, counts: SwitchedRefcounts) -> None:
        """Allow all counts of this layer's references, including its own tables, to be changed after settle()."""
        if self.l1:
            counts.own(*self.l1_clusters)
        for index, cluster in self.tables():
            counts.own(cluster)
            for first, number in self.references(index):
                counts.own(first, number)

    def raise_counts(self, counts: SwitchedRefcounts) -> None:
        """Raise the counts of all direct and indirect references of the L1 table."""
        for index, cluster in self.tables():
            counts.raise_counts(cluster)
            for first, number in self.references(index):
                counts.raise_counts(first, number)

    def lower(self, counts: SwitchedRefcounts) -> None:
        """Lower the counts of all direct and indirect references of the L1 table."""
        for index, cluster in self.tables():
            for first, number in self.references(index):
                counts.lower(first, number)
            counts.lower(cluster)

    def _read_l1(self, entries: int) -> array[int]:
        """The offsets of the L2 tables, without flags."""
        self._check_l1_table(entries)
        raw = bytearray(entries * layout.ENTRY_SIZE)
        self._store.read_into(self.offset, raw)
        l1 = numbers(raw)
        left = self._store.size // self._header.cluster_size
        for index, entry in enumerate(l1):
            if entry:
                l1[index] = self._checked(index, entry)
                left -= l1[index] > 0
        if left < 0:
            raise self._invalid(f"it has more L2 tables than the file (0x{self._store.size:x}) holds")
        return l1

    def _check_l1_table(self, entries: int) -> None:
        size = self._header.cluster_size
        if entries * layout.ENTRY_SIZE > layout.MAX_L1_TABLE_SIZE:
            raise self._invalid(
                f"it has {entries} entries, at most {layout.MAX_L1_TABLE_SIZE // layout.ENTRY_SIZE} are allowed"
            )
        if entries and (self.offset < size or self.offset % size):
            raise self._invalid(f"the offset 0x{self.offset:x} is that of the header, or is not aligned")
        if self.offset + entries * layout.ENTRY_SIZE > self._store.size:
            raise self._invalid(f"it ends beyond the end of the file (0x{self._store.size:x})")

    def _checked(self, index: int, entry: int) -> int:
        offset = entry & layout.ENTRY_OFFSET
        if entry & layout.L1_RESERVED or offset % self._header.cluster_size:
            raise self._invalid(f"entry {index}: 0x{entry:016x} has reserved bits set or is not aligned")
        if offset + self._header.cluster_size > self._store.size:
            raise self._invalid(f"entry {index}: the L2 table at 0x{offset:x} lies beyond the end of the file")
        return offset

    def _invalid(self, text: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._store.name}: {self._what}: {text}; the image is truncated or corrupt, and was not changed"
        )


def references(words: array[int], header: Header) -> Iterator[tuple[int, int]]:
    """Yield (first cluster, number) of the references of an L2 table's words to the image's file."""
    if header.has_data_file:
        return
    bits, first, count = header.cluster_bits, 0, 0
    entries = words[:: header.l2_entry_size // layout.ENTRY_SIZE]
    for index in nonzero(entries):
        entry = entries[index]
        if entry & layout.L2_COMPRESSED:
            offset, length = header.compressed_at(entry)
            yield offset >> bits, ((offset + length - 1) >> bits) - (offset >> bits) + 1
            continue
        host = (entry & layout.ENTRY_OFFSET) >> bits
        if host == first + count and count:
            count += 1
        elif host:
            if count:
                yield first, count
            first, count = host, 1
    if count:
        yield first, count


def l1_length(header: Header, entries: int) -> int:
    """Return the number of clusters of an L1 table with that many entries."""
    return -(-entries * layout.ENTRY_SIZE // header.cluster_size)


def write_l1(store: Store, header: Header, cluster: int, l1: array[int]) -> None:
    """Write an L1 table to whole clusters from cluster on."""
    raw = big_endian(l1[:])
    store.write(cluster << header.cluster_bits, raw.ljust(l1_length(header, len(l1)) << header.cluster_bits, b"\0"))


def has_flags(words: array[int], header: Header) -> bool:
    """True if any entry of the L2 table has the copied flag."""
    entries = words[:: header.l2_entry_size // layout.ENTRY_SIZE]
    return max(entries) >= layout.COPIED  # the highest bit


def with_flags(words: array[int], header: Header, counts: SwitchedRefcounts) -> array[int]:
    """Return the words of an L2 table with the copied flag exactly on entries whose clusters are counted once.

    Clusters of an external data file are not counted, and keep their flags.
    """
    if header.has_data_file:
        return words[:]
    step = header.l2_entry_size // layout.ENTRY_SIZE
    new = words[:]
    for number in nonzero(words[::step]):
        index = number * step
        entry = words[index]
        if entry & layout.ENTRY_OFFSET and not entry & layout.L2_COMPRESSED:
            host = (entry & layout.ENTRY_OFFSET) >> header.cluster_bits
            new[index] = entry & ~layout.COPIED | (layout.COPIED if counts.get(host) == 1 else 0)
    return new


def without_flags(words: array[int], header: Header) -> array[int]:
    """Return the words of an L2 table without any copied flag."""
    step = header.l2_entry_size // layout.ENTRY_SIZE
    new = words[:]
    for number in nonzero(words[::step]):
        new[number * step] &= ~layout.COPIED
    return new
