# SPDX-License-Identifier: MIT
"""Write to clusters with subclusters: a cluster is allocated as a whole, and each 32nd of it is stored separately.

written      |         ####    |            #: what write() got, inside of two subclusters
stored       |    |    :##:    |    |       both are completed with the disk's bytes around it
bitmap        0    0    1    1    0         the others are unchanged: not stored, or zero
"""

from __future__ import annotations

from array import array

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.write.clusters import ClusterWriter
from pydiskimg.images.qcow2.write.l2_words import ALLOCATED
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.images.qcow2.write.shared import Contents


class SubclusterWriter(ClusterWriter):
    """Writes to an image with extended L2 entries, as ClusterWriter does."""

    def __init__(self, *how: Any, **options: Any) -> None:
        super().__init__(*how, **options)
        self._unit = self._cluster_size // layout.SUBCLUSTERS

    def _write_partial(self, cluster: int, inside: int, view: memoryview) -> None:
        with self._lock:
            words = self._map.entries_to_write(cluster, 1) or self._words.unmapped(1)
        entry, bitmap = words
        end = inside + len(view)
        if entry & layout.L2_COMPRESSED or (not entry and not bitmap and len(view) == self._known(cluster)):
            super()._write_partial(cluster, inside, view)
            return
        first, last = inside // self._unit, -(-end // self._unit)
        wanted = _bits(first, last)
        if not self._words.is_in_place(entry):
            self._write_elsewhere(cluster, words, inside, view, wanted)
            return
        host = entry & layout.ENTRY_OFFSET
        if bitmap & wanted == wanted:
            self._data.write(host + inside, view)
            return
        low = inside if bitmap >> first & 1 else first * self._unit
        high = end if bitmap >> (last - 1) & 1 else last * self._unit
        self._write_data(host + low, self._filled_up(cluster, words, low, high, inside, view))
        with self._lock:
            self._map.put(cluster, array("Q", (entry, _with_data(bitmap, wanted))))

    def _write_elsewhere(self, cluster: int, words: array[int], inside: int, view: memoryview, wanted: int) -> None:
        """Write the cluster's stored data, with view in it, to a new host offset."""
        bitmap = words[1]
        stored = bitmap & ALLOCATED | wanted
        low = ((stored & -stored).bit_length() - 1) * self._unit
        high = stored.bit_length() * self._unit
        data = self._filled_up(cluster, words, low, high, inside, view)
        first, _, _ = self._allocate(cluster, 1)
        try:
            self._write_data(first * self._cluster_size + low, data)
            entry = first * self._cluster_size | layout.COPIED
            with self._lock:
                self._map.put(cluster, array("Q", (entry, _with_data(bitmap, wanted))))
        except Exception:  # as in _write_standard()
            with self._lock:
                self._map.release(first, 1)
            raise

    def _filled_up(
        self, cluster: int, words: array[int], low: int, high: int, inside: int, view: memoryview
    ) -> memoryview:
        """The bytes [low, high) of the cluster, from the disk, with view at inside."""
        data = memoryview(bytearray(high - low))
        start, known = cluster * self._cluster_size, self._known(cluster)
        for at, end in ((low, inside), (inside + len(view), min(high, known))):
            if at < end:
                self.read(cluster, words, start + at, data[at - low : end - low])
        data[inside - low : inside - low + len(view)] = view
        return data

    def write_whole(self, cluster: int, view: Contents) -> None:
        size = self._cluster_size
        count = len(view) // size
        with self._lock:
            words = self._map.entries_to_write(cluster, count)
        if words is None or not any(words):
            self._write_new(cluster, view)
            return
        entries, bitmaps, start = words[0::2], words[1::2], 0
        while start < count:
            end = start + 1
            part = self._words.is_in_place(entries[start]), bool(entries[start] or bitmaps[start])
            while end < count and part == (self._words.is_in_place(entries[end]), bool(entries[end] or bitmaps[end])):
                if part[0] and entries[end] != entries[end - 1] + size:
                    break
                end += 1
            piece = view[start * size : end * size]
            if part[0]:
                self._overwrite(entries[start] & layout.ENTRY_OFFSET, piece)
                self._store_all(cluster + start, entries[start:end], bitmaps[start:end])
            elif part[1]:
                self._write_standard(cluster + start, piece)
            else:
                self._write_new(cluster + start, piece)
            start = end

    def _store_all(self, cluster: int, entries: array[int], bitmaps: array[int]) -> None:
        """Set the bitmaps of clusters that were written in place to all that is stored there."""
        if bitmaps.count(ALLOCATED) < len(bitmaps):
            with self._lock:
                first = (entries[0] & layout.ENTRY_OFFSET) // self._cluster_size
                self._map.put(cluster, self._words.data(first, len(entries)))

    def _zero_partial(self, start: int, end: int) -> None:
        cluster, inside = divmod(start, self._cluster_size)
        unit, stop = self._unit, inside + end - start
        with self._lock:
            words = self._map.entries(cluster, 1) or self._words.unmapped(1)
        if words[0] & layout.L2_COMPRESSED:
            self._write_partial(cluster, inside, memoryview(bytes(end - start)))
            return
        first = -(-inside // unit)
        last = -(-stop // unit) if end == self.size else stop // unit
        if first > last:
            self._zero_in_subcluster(cluster, inside, stop)
            return
        if inside < first * unit:
            self._zero_in_subcluster(cluster, inside, min(stop, first * unit))
        if last * unit < stop:
            self._zero_in_subcluster(cluster, last * unit, stop)
        if first < last:
            self._zero_subclusters(cluster, _bits(first, last))

    def _zero_in_subcluster(self, cluster: int, start: int, end: int) -> None:
        """Zero bytes of one subcluster, by writing unless it reads as zero."""
        number = start // self._unit
        with self._lock:
            bitmap = (self._map.entries(cluster, 1) or self._words.unmapped(1))[1]
        is_zero = bitmap >> layout.SUBCLUSTERS >> number & 1
        if is_zero or not (bitmap >> number & 1 or self._has_backing(cluster)):
            return
        self._write_partial(cluster, start, memoryview(bytes(end - start)))

    def _zero_subclusters(self, cluster: int, wanted: int) -> None:
        with self._lock:
            self._make_room()
            entry, bitmap = self._map.entries(cluster, 1) or self._words.unmapped(1)
            new = bitmap & ~wanted
            if self._has_backing(cluster):
                new |= wanted << layout.SUBCLUSTERS
            if new != bitmap:
                self._map.put(cluster, array("Q", (entry, new)))


def _bits(first: int, last: int) -> int:
    """A bit for each subcluster from first up to last."""
    return (1 << last) - (1 << first)


def _with_data(bitmap: int, stored: int) -> int:
    """The bitmap once these subclusters are stored."""
    return (bitmap | stored) & ~(stored << layout.SUBCLUSTERS)
