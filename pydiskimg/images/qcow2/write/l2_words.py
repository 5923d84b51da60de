# SPDX-License-Identifier: MIT
"""The words of an image's L2 entries: one for each cluster, or two, the entry and its subclusters' bitmap."""

from __future__ import annotations

from array import array

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.l2_tables import L2Table
from pydiskimg.images.qcow2.runs import COMPRESSED, DATA, HOLE, MIXED, ZERO
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydiskimg.images.qcow2.header import Header

ALLOCATED = layout.SUBCLUSTERS_ALLOCATED
ALL_ZERO = layout.SUBCLUSTERS_ALLOCATED << layout.SUBCLUSTERS


class L2Words:
    """Makes and reads the words of an image's L2 entries; step is the words of a cluster."""

    def __init__(self, header: Header) -> None:
        self.step = header.l2_entry_size // layout.ENTRY_SIZE
        self._size = header.cluster_size
        self._is_raw = header.data_file_raw
        # In an external data file a host offset may be 0: there the copied flag tells that there is one.
        self._host_mask = layout.ENTRY_OFFSET | (layout.COPIED if header.has_data_file else 0)

    def data(self, first: int, count: int) -> array[int]:
        """The words of count clusters from host cluster first on, each with one reference, and all data."""
        size = self._size
        entries = range(first * size | layout.COPIED, (first + count) * size | layout.COPIED, size)
        return self._with_bitmaps(entries, ALLOCATED, count)

    def preallocated(self, first: int, old: array[int]) -> array[int]:
        """The words of clusters that get host clusters from first on and had none before.

        With subclusters their contents do not change; without, they become data, as in a raw data file.
        """
        new = self.data(first, len(old) // self.step)
        if self.step > 1 and not self._is_raw:
            new[1::2] = old[1::2]
        return new

    def compressed(self, entries: list[int]) -> array[int]:
        """The words of compressed clusters."""
        return self._with_bitmaps(entries, 0, len(entries))

    def zero(self, count: int) -> array[int]:
        """The words of clusters that read as zero regardless of the backing file."""
        return array("Q", (layout.L2_ZERO,) if self.step == 1 else (0, ALL_ZERO)) * count

    def unmapped(self, count: int) -> array[int]:
        """The words of clusters that show the backing file, or zeros."""
        return array("Q", bytes(count * self.step * layout.ENTRY_SIZE))

    def is_in_place(self, entry: int) -> bool:
        """True for a cluster that only this entry refers to and that can be written in place."""
        if entry & layout.L2_COMPRESSED or not entry & layout.COPIED or not entry & self._host_mask:
            return False
        return self.step > 1 or not entry & layout.L2_ZERO

    def has_host_offset(self, entry: int) -> bool:
        """True if the entry has the location of the cluster, in any form."""
        return bool(entry & (self._host_mask | layout.L2_COMPRESSED))

    def table(self, words: array[int]) -> L2Table:
        """The words of consecutive clusters as a table with their kinds."""
        step = self.step
        if step == 1:
            kinds = bytes(map(self._kind, words))
        else:
            kinds = bytes(map(_kind_with_subclusters, words[0::2], words[1::2]))
        return L2Table(words, kinds, step)

    def _kind(self, entry: int) -> int:
        if entry & layout.L2_COMPRESSED:
            return COMPRESSED
        if entry & layout.L2_ZERO:
            return ZERO
        return DATA if entry & self._host_mask else HOLE

    def _with_bitmaps(self, entries: Iterable[int], bitmap: int, count: int) -> array[int]:
        if self.step == 1:
            return array("Q", entries)
        words = array("Q", (0, bitmap)) * count
        words[0::2] = array("Q", entries)
        return words


def _kind_with_subclusters(entry: int, bitmap: int) -> int:
    if entry & layout.L2_COMPRESSED:
        return COMPRESSED
    return {0: HOLE, ALLOCATED: DATA, ALL_ZERO: ZERO}.get(bitmap, MIXED)
