# SPDX-License-Identifier: MIT
"""Shrink the virtual disk of a qcow2 image, by one write of its header."""

from __future__ import annotations

from array import array

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import require_resizable
from pydiskimg.images.qcow2.sizes import round_size
from pydiskimg.images.qcow2.switch.layer import references, with_flags
from pydiskimg.images.qcow2.switch.switch import Switch
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.protocols import Store


def shrink_qcow2(store: Store, size: int) -> int:
    """Shrink the virtual disk of the qcow2 image in store to size bytes, rounded up to 512; durable on return.

    The bytes beyond it are lost, except in snapshots. Clusters without references become free in the file; returns the
    end of the last used cluster (bytes): the caller may cut the file there. Raises InvalidImageError, StorageError, and
    UnsupportedImageError for a size that is not smaller, for version 2 with snapshots, and for dirty bitmaps that are
    in use; nothing was changed then.
    """
    return _Shrinking(store).to(round_size(size))


class _Shrinking(Switch):
    def to(self, size: int) -> int:
        self._check(size)
        counts, active, header = self._counts, self._active, self._header
        needed = -(-size // header.l2_span)
        # Entries of the last table that remain; all of them if the size is a multiple of a table's range.
        kept = -(-(size % header.l2_span) // header.cluster_size) or header.l2_entries
        active.own(counts)
        l1 = active.l1[:needed]
        copy = counts.allocate_one() if needed and l1[-1] and kept < header.l2_entries else None
        new_l1 = self._new_l1(needed)
        bitmaps = self._smaller_bitmaps(size) if header.has_bitmaps else None
        self._settle()
        for index, cluster in active.tables():
            if index >= needed:
                for first, number in active.references(index):
                    counts.lower(first, number)
                counts.lower(cluster)
        if copy is not None:
            l1[-1] = self._cut(needed - 1, kept, copy)
        self._flag_l1(l1)
        counts.drop_empty_blocks()
        self._publish(new_l1, l1, bitmaps, size=size)
        return min(counts.end_of_used() << header.cluster_bits, self._store.size)

    def _cut(self, index: int, kept: int, copy: int) -> int:
        """Write the remaining part of an L2 table to the cluster copy; return its offset."""
        counts, header = self._counts, self._header
        words, at = self._active.table(index), kept * header.l2_entry_size // layout.ENTRY_SIZE
        for first, number in references(words[at:], header):
            counts.lower(first, number)
        counts.lower(self._active.l1[index] >> header.cluster_bits)
        words[at:] = array("Q", bytes((len(words) - at) * layout.ENTRY_SIZE))
        return self._write_l2(copy, with_flags(words, header, counts))

    def _smaller_bitmaps(self, size: int) -> dict[int, bytes]:
        """Write the bitmaps adapted to the smaller disk; return the header's extensions."""
        from pydiskimg.images.qcow2.bitmap_set import BitmapSet  # imported here: few images have any

        bitmaps = BitmapSet(self._store, self._header)
        bitmaps.resize(size)
        return bitmaps.write_new(self._store, self._counts.take, self._counts.leave)

    def _check(self, size: int) -> None:
        header, name = self._header, self._store.name
        if size > header.size:
            raise UnsupportedImageError(f"{name}: has {header.size} bytes, and cannot shrink to {size}")
        require_resizable(header, name)
