# SPDX-License-Identifier: MIT
"""The common part of all changes of a whole image: the active layer, the counts, and the final write."""

from __future__ import annotations

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.cache import Cache
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.switch.counts import SwitchedRefcounts
from pydiskimg.images.qcow2.switch.layer import DiskLayer, l1_length, write_l1
from pydiskimg.images.qcow2.words import big_endian
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

    from pydiskimg.protocols import Store


L2_CACHE = 8 << 20  # bytes of L2 tables


class Switch:
    """A change of the image in a Store: first everything is allocated, then _settle(), then counts, then _publish().

    Raises InvalidImageError, and UnsupportedImageError for an image that cannot be written; nothing was changed then.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._header = header = read_header(store)
        require_changeable(header, store.name)
        self._counts = SwitchedRefcounts(store, header)
        self._kept: Cache[array[int]] = Cache(L2_CACHE)
        self._active = self._layer(header.l1_table_offset, header.l1_size, what="the L1 table")

    def _layer(self, offset: int, entries: int, *, what: str) -> DiskLayer:
        return DiskLayer(self._store, self._header, offset, entries, what=what, kept=self._kept)

    def _new_l1(self, entries: int) -> int:
        """Allocate clusters for an L1 table with that many entries; return the first."""
        length = l1_length(self._header, entries)
        return self._counts.take(length) if length else 0

    def _settle(self) -> None:
        self._counts.leave(*(self._active.l1_clusters))
        self._counts.settle()

    def _write_l2(self, cluster: int, words: array[int]) -> int:
        """Write an L2 table; returns its offset."""
        offset = cluster << self._header.cluster_bits
        self._store.write(offset, big_endian(words))
        return offset

    def _write_l1(self, cluster: int, l1: array[int]) -> None:
        if l1:
            write_l1(self._store, self._header, cluster, l1)

    def _flag_l1(self, l1: array[int]) -> None:
        """Give the entries of l1, offsets without flags, the copied flag if their table is counted once."""
        for index, offset in enumerate(l1):
            if offset and self._counts.get(offset >> self._header.cluster_bits) == 1:
                l1[index] = offset | layout.COPIED

    def _publish(
        self, l1_cluster: int, l1: array[int], extensions: dict[int, bytes] | None = None, /, **fields: int
    ) -> None:
        """Put the changed image into effect; extensions are as for SwitchedRefcounts.publish()."""
        self._write_l1(l1_cluster, l1)
        if self._header.version >= 3:
            kept = layout.AUTOCLEAR_BITMAPS
            kept |= layout.AUTOCLEAR_DATA_FILE_RAW if self._header.has_data_file else 0
            fields["autoclear_features"] = self._header.autoclear_features & kept
        offset = l1_cluster << self._header.cluster_bits
        self._counts.publish(extensions, l1_table_offset=offset, l1_size=len(l1), **fields)
