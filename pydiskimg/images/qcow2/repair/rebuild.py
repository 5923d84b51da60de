# SPDX-License-Identifier: MIT
"""Counts and copied flags of a whole image, computed again and put into effect by one write of its header."""

from __future__ import annotations

from array import array
from operator import sub
from typing import cast

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.refcount_reader import read_padded
from pydiskimg.images.qcow2.repair.counts import RebuiltRefcounts
from pydiskimg.images.qcow2.repair.entries import mend_entries
from pydiskimg.images.qcow2.repair.references import References
from pydiskimg.images.qcow2.snapshots import SNAPSHOT, packed_snapshot, snapshot_entries
from pydiskimg.images.qcow2.words import big_endian, is_zero, numbers
from pydiskimg.protocols import Source, Store
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.check.reference_counter import ReferenceCounter
    from pydiskimg.images.qcow2.header import Header

_SHORT = 12  # entries: shorter ones are not worth a run of their own
_COMPLETE = 16  # bytes of extra data that each snapshot of version 3 has


def rebuild(store: Store, end: int) -> None:
    """Give the image in store new reference counts, and copied flags that agree with them; durable on return.

    end is the end (bytes) of its last cluster that is referred to or counted: new clusters go there. A check has found
    that its other tables are valid. Snapshot entries get the extra data that version 3 requires. Raises
    InvalidImageError, UnsupportedImageError if there are more clusters than can be counted, and StorageError; the image
    is then unchanged.
    """
    _Rebuild(store, end).run()


class _Rebuild:
    def __init__(self, store: Store, end: int) -> None:
        self._store = store
        self._file = cast("Source", store)
        self._header = header = read_header(store, tables_inside=False)
        self._end = end >> header.cluster_bits
        self._references = References(self._file, header, self._count, is_rebuilt=True)
        self._l1 = numbers(read_padded(self._file, header.l1_table_offset, header.l1_size * layout.ENTRY_SIZE))
        self._snapshots, self._old_snapshots = self._complete_snapshots()
        tables = {entry & layout.ENTRY_OFFSET for entry in self._l1} - {0}
        l1_length = self._clusters(len(self._l1) * layout.ENTRY_SIZE)
        spare = len(tables) + l1_length + self._clusters(len(self._snapshots)) + 1
        self._counts = RebuiltRefcounts(store, header, self._end, spare=spare)

    def run(self) -> None:
        header = self._header
        mend_entries(self._store)
        self._references.run()
        fields = self._new_snapshot_table() | self._new_l1()
        extensions = None
        if not header.has_bitmaps and layout.EXTENSION_BITMAPS in header.extensions:
            # A program without bitmaps changed the image; the clusters of the bitmaps are free now.
            extensions = {kind: data for kind, data in header.extensions.items() if kind != layout.EXTENSION_BITMAPS}
        self._counts.publish(extensions, **fields)

    def _count(self, counter: ReferenceCounter) -> None:
        for first, references, _ in counter.pages(self._end):
            self._counts.count(first, references)

    def _clusters(self, length: int) -> int:
        return -(-length // self._header.cluster_size)

    def _complete_snapshots(self) -> tuple[bytes, int]:
        """The snapshot table with complete entries (empty if they already are), and the length of the old one."""
        entries = snapshot_entries(self._store, self._header) if self._header.version >= 3 else []
        sizes = [SNAPSHOT.unpack(raw)["extra_data_size"] for _, raw in entries]
        if all(size >= _COMPLETE for size in sizes):
            return b"", 0
        whole = b"".join(
            raw if size >= _COMPLETE else packed_snapshot(snapshot)
            for (snapshot, raw), size in zip(entries, sizes, strict=True)
        )
        return whole, sum(len(raw) for _, raw in entries)

    def _new_snapshot_table(self) -> dict[str, int]:
        if not self._snapshots:
            return {}
        bits = self._header.cluster_bits
        count = self._clusters(len(self._snapshots))
        cluster = self._counts.allocate_together(count)
        self._store.write(cluster << bits, self._snapshots.ljust(count << bits, b"\0"))
        self._counts.lower(self._header.snapshots_offset >> bits, self._clusters(self._old_snapshots))
        return {"snapshots_offset": cluster << bits}

    def _new_l1(self) -> dict[str, int]:
        """Make all copied flags of the active layer agree with the counts; return the header's fields."""
        header, counts, bits = self._header, self._counts, self._header.cluster_bits
        l1 = self._l1[:]
        moved: dict[int, int] = {}
        for index, entry in enumerate(self._l1):
            offset = entry & layout.ENTRY_OFFSET
            if not offset:
                continue
            if offset not in moved:
                moved[offset] = self._with_flags(offset)
            elif moved[offset] != offset:
                counts.increase(moved[offset] >> bits, 1)
            if moved[offset] != offset:
                counts.lower(offset >> bits)
                l1[index] = moved[offset]
        for index, entry in enumerate(l1):
            if offset := entry & layout.ENTRY_OFFSET:
                l1[index] = offset | (layout.COPIED if counts.get(offset >> bits) == 1 else 0)
        if l1 == self._l1:
            return {}
        count = self._clusters(len(l1) * layout.ENTRY_SIZE)
        cluster = counts.allocate_together(count)
        self._store.write(cluster << bits, big_endian(l1).ljust(count << bits, b"\0"))
        counts.lower(header.l1_table_offset >> bits, count)
        return {"l1_table_offset": cluster << bits}

    def _with_flags(self, offset: int) -> int:
        """Return the offset of an L2 table whose flags agree with the counts: the one at offset, or a copy."""
        raw = read_padded(self._file, offset, self._header.cluster_size)
        if is_zero(raw):
            return offset
        words = numbers(raw)
        new = with_right_flags(words, self._header, self._counts)
        if new == words:
            return offset
        copy = self._counts.allocate_one() << self._header.cluster_bits
        self._store.write(copy, big_endian(new))
        return copy


def with_right_flags(words: array[int], header: Header, counts: RebuiltRefcounts) -> array[int]:
    """Return the words of an L2 table with the copied flag exactly where a cluster is counted once."""
    new = words[:]
    step, size = header.l2_entry_size // layout.ENTRY_SIZE, header.cluster_size
    entries = words[::step]
    for start, stop in _runs(entries, size):
        entry, count = entries[start], stop - start
        first = (entry & layout.ENTRY_OFFSET) >> header.cluster_bits
        is_run = count >= _SHORT and first and not entry & layout.L2_COMPRESSED and not header.has_data_file
        if is_run and counts.are_once(first, count):
            entry |= layout.COPIED
            new[start * step : stop * step : step] = array("Q", range(entry, entry + count * size, size))
            continue
        for index in range(start, stop):
            if entries[index]:
                new[index * step] = _with_right_flag(entries[index], header, counts)
    return new


def _with_right_flag(entry: int, header: Header, counts: RebuiltRefcounts) -> int:
    offset = entry & layout.ENTRY_OFFSET
    if entry & layout.L2_COMPRESSED:
        return entry & ~layout.COPIED
    if not offset:
        return entry
    is_alone = header.has_data_file or counts.get(offset >> header.cluster_bits) == 1
    return entry & ~layout.COPIED | layout.COPIED * is_alone


def _runs(entries: array[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the entries that are contiguous by size, with the same flags; most are alone."""
    start = 0
    steps = map(sub, memoryview(entries)[1:], entries)
    for stop in [index for index, step in enumerate(steps, 1) if step != size]:
        yield start, stop
        start = stop
    yield start, len(entries)
