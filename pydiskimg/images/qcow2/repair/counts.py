# SPDX-License-Identifier: MIT
"""New reference counts: a new refcount table and blocks, all after the clusters that the image uses.

    | the image as the header names it, unchanged          | new table | new blocks | new L2 tables, L1 table |
                                                             not referred to until publish()

Nothing is written between the image's clusters, because it is in doubt which of them are free.
"""

from __future__ import annotations

import sys
from array import array
from copy import copy

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.refcount_reader import expanded
from pydiskimg.images.qcow2.sizes import refcount_clusters
from pydiskimg.images.qcow2.words import big_endian, is_zero
from pydiskimg.images.qcow2.write.head import switch_head
from pydiskimg.images.qcow2.write.refcounts import Refcounts
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Store


class RebuiltRefcounts(Refcounts):
    """The counts of an image whose clusters end before cluster end; spare additional ones can be allocated."""

    def __init__(self, store: Store, header: Header, end: int, *, spare: int) -> None:
        clusters, _ = refcount_clusters(end + spare, header.cluster_size, header.refcount_order)
        if clusters << header.cluster_bits > layout.MAX_REFCOUNT_TABLE_SIZE:
            raise UnsupportedImageError(
                f"{store.name}: is in use up to byte {end << header.cluster_bits}, and no refcount table counts so "
                f"many clusters of {header.cluster_size} bytes; nothing was changed: copy what can be read with convert"
            )
        new = copy(header)
        new.refcount_table_offset, new.refcount_table_clusters = end << header.cluster_bits, clusters
        new.nb_snapshots = 0  # its table may share clusters with others' counts, and is not allocated either
        for cluster in range(end, end + clusters):
            store.write(cluster << header.cluster_bits, bytes(header.cluster_size))
        super().__init__(store, new)
        self._header = header
        self._to_scan = 0  # free clusters of the image are not searched
        for cluster in range(end, end + clusters):
            self._need_block(cluster // self._per_block)
        self._set(end, clusters, 1)

    def count(self, first: int, references: bytes) -> None:
        """Set the numbers of references of the clusters from first on, 16 bits for each; none larger than largest."""
        at, length = 0, len(references) // 2
        while at < length:
            number, index = divmod(first + at, self._per_block)
            some = min(length - at, self._per_block - index)
            part = references[2 * at : 2 * (at + some)]
            if not is_zero(part):
                self._count_in_block(number, index, array("H", part))
            at += some

    def are_once(self, first: int, count: int) -> bool:
        """True if each of count clusters from first on is counted once."""
        at, end = first, first + count
        while at < end:
            number, index = divmod(at, self._per_block)
            some = min(end - at, self._per_block - index)
            if number >= len(self._table) or not self._table[number]:
                return False
            low, high = self._entries.span(index, some)
            counts = expanded(self._block(number).raw[low:high], self._entries.order)
            skipped = index - (low << 3 >> self._entries.order)  # earlier counts in the same byte
            if counts[skipped : skipped + some] != b"\1" * some:
                return False
            at += some
        return True

    def allocate_one(self) -> int:
        """Allocate a cluster, counted once."""
        return self.allocate_at_end(1)[0]

    def lower(self, cluster: int, count: int = 1) -> None:
        """Lower the counts of clusters by one."""
        for each in range(cluster, cluster + count):
            self._lower(each, 1)
        self._write_when_crowded()

    def publish(self, extensions: dict[int, bytes] | None, /, **fields: int) -> None:
        """Make these the counts of the image; the header gets fields, and extensions if not None; durable."""
        self._blocks.write()
        self._store.write(self._table_offset, big_endian(self._table[:]))
        fields |= {"refcount_table_offset": self._table_offset, "refcount_table_clusters": self._table_clusters}
        switch_head(self._store, self._header, extensions, **fields)

    def _count_in_block(self, number: int, index: int, numbers: array[int]) -> None:
        self._need_block(number)
        block, entries = self._block(number), self._entries
        if entries.order >= 3:
            low, high = entries.span(index, len(numbers))
            block.raw[low:high] = _widened(numbers, 1 << entries.order - 3)
        else:
            for at, value in enumerate(numbers, index):
                if value:
                    entries.put(block.raw, at, value)
        self._blocks.changed(block, *entries.span(index, len(numbers)))
        self._write_when_crowded()

    def _need_block(self, number: int) -> None:
        """Make a block for the counts of its clusters."""
        if self._table[number]:
            return
        cluster, _ = self._at_end(1)
        if self._table[number]:  # the clusters at the end needed it, too
            self._end = cluster
            return
        self._make_block(number, cluster)
        self._set(cluster, 1, 1)

    def _write_when_crowded(self) -> None:
        """The blocks are not referred to yet: they may be written at any time."""
        if self._blocks.is_crowded:
            self._blocks.write()


def _widened(numbers: array[int], width: int) -> bytes:
    """The numbers of 16 bits, big-endian, in width bytes each."""
    if sys.byteorder == "little":
        numbers.byteswap()
    raw = numbers.tobytes()
    if width == 1:
        return raw[1::2]
    wide = bytearray(len(numbers) * width)
    wide[width - 2 :: width], wide[width - 1 :: width] = raw[0::2], raw[1::2]
    return bytes(wide)
