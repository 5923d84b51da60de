# SPDX-License-Identifier: MIT
"""The future reference counts: every changed block goes to a new cluster, and so does the refcount table.

    refcount table  --->  blocks              those of the header: not changed
                            |
    new table  -----------> blocks, new blocks    those of the header after publish()

When counts and copied flags change together, the image is consistent only before and after the one write of the header.
First all clusters are allocated (own(), allocate()); then settle() allocates the table; after that counts are raised
and lowered, and nothing more is allocated: clusters that become free may still be in use by the image that the header
describes.
"""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2.words import big_endian
from pydiskimg.images.qcow2.write.head import switch_head
from pydiskimg.images.qcow2.write.refcounts import Refcounts
from pydiskimg.startup import TYPE_CHECKING

# Searches for contiguous clusters; after that they are taken at the end of the file.
MOST_LOOKS = 10_000
MOST_DISCARDS = 1_000_000  # runs of clusters; free ones of other blocks only waste space
LEAST_DISCARD = 1 << 20  # bytes in all; less, such as the tables that moved, is soon used again

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.write.tables import CachedTable
    from pydiskimg.protocols import Store


class SwitchedRefcounts(Refcounts):
    """The counts of an image that is changed as a whole; used once, by one thread. Clusters as in Refcounts."""

    def __init__(self, store: Store, header: Header) -> None:
        super().__init__(store, header)
        self._header = header
        self._own: set[int] = set()
        self._left: list[tuple[int, int]] = [(self._table_offset >> self._cluster_bits, self._table_clusters)]
        self._is_settled = False
        self._lowered: list[tuple[int, int]] = []

    def own(self, cluster: int, count: int = 1) -> None:
        """Allow the counts of these clusters to be changed after settle()."""
        for number in range(cluster // self._per_block, (cluster + count - 1) // self._per_block + 1):
            if number >= len(self._table) or not self._table[number]:
                raise self._wrong(max(cluster, number * self._per_block))
            self._block_to_change(number)
        self._write_when_crowded()

    def allocate_one(self) -> int:
        """Allocate a free cluster, counted once."""
        cluster = self._free_cluster()
        self._set(cluster, 1, 1)
        return cluster

    def take(self, count: int) -> int:
        """Allocate count contiguous clusters, each counted once; return the first."""
        if count == 1:
            return self.allocate_one()
        cluster = self._gap(count)
        if cluster is None:
            return self.allocate_together(count)
        self._set(cluster, count, 1)
        return cluster

    def leave(self, cluster: int, count: int) -> None:
        """Note clusters of a table that the header will not refer to any more: settle() lowers their counts."""
        if count:
            self.own(cluster, count)
            self._left.append((cluster, count))

    def give_up(self, cluster: int, count: int) -> None:
        """Note clusters of a table that was allocated and moved before it was written."""
        self.metadata.discard(cluster, count)
        self._left.append((cluster, count))

    def settle(self) -> None:
        """Allocate clusters for the new refcount table; after that nothing is allocated."""
        if self._moved_from is None:
            clusters = self._table_clusters
            first = self.take(clusters)
            self._table_offset = first << self._cluster_bits
            self.protect(first, clusters)
            self._moved_from = self._left[0]
        done = 0
        while done < len(self._left):  # a block that moves frees a cluster, whose count may be in another block
            self.own(*self._left[done])
            done += 1
        self._is_settled = True
        for cluster, count in self._left:
            self.lower(cluster, count)

    def raise_counts(self, cluster: int, count: int = 1) -> None:
        """Raise the counts of own() or allocated clusters by one; UnsupportedImageError beyond the largest."""
        while count:
            number, index = divmod(cluster, self._per_block)
            some = min(count, self._per_block - index)
            self._raise_in(self._block_to_change(number), index, some)
            cluster, count = cluster + some, count - some
        self._write_when_crowded()

    def lower(self, cluster: int, count: int = 1) -> None:
        """Lower the counts of clusters, which are own() or allocated, by one; publish() frees unused ones."""
        self._note_lowered(cluster, count)
        while count:
            some = min(count, self._per_block - cluster % self._per_block)
            self._lower(cluster, some)
            cluster, count = cluster + some, count - some
        self._write_when_crowded()

    def are_counted_once(self, cluster: int, count: int) -> bool:
        """True when each of count clusters of one block has the count 1."""
        number, index = divmod(cluster, self._per_block)
        if index + count > self._per_block or number >= len(self._table) or not self._table[number]:
            return all(self.get(each) == 1 for each in range(cluster, cluster + count))
        return self._entries.are(self._block(number).raw, index, count, 1)

    def end_of_used(self) -> int:
        """The first cluster after the last that is counted."""
        for number in range(len(self._table) - 1, -1, -1):
            if self._table[number] and (index := self._entries.last_used(self._block(number).raw)) >= 0:
                return number * self._per_block + index + 1
        return 0

    def drop_empty_blocks(self) -> None:
        """Remove changed blocks that count nothing any more, or only themselves, from the new table."""
        found = True
        while found:  # a removed block was counted in another one
            found = False
            for number in [each for each in sorted(self._own) if self._table[each]]:
                if not self._counts_itself_at_most(number):
                    continue
                found, offset = True, self._table[number]
                cluster = offset >> self._cluster_bits
                if cluster // self._per_block != number:
                    self.lower(cluster)
                self._table[number] = 0
                self._blocks.drop(offset)
                self.metadata.discard(cluster)

    def publish(self, extensions: dict[int, bytes] | None = None, /, **fields: int) -> None:
        """Write the changes, then the header, which gets these fields: this makes the new image durable.

        extensions are the header's new ones; None: unchanged.
        """
        assert self._is_settled
        self._blocks.write()
        self._store.write(self._table_offset, big_endian(self._table[:]))
        fields |= {"refcount_table_offset": self._table_offset, "refcount_table_clusters": self._table_clusters}
        switch_head(self._store, self._header, extensions, **fields)
        self._discard()

    def _counts_itself_at_most(self, number: int) -> bool:
        """True if block number counts nothing, or only its own cluster."""
        raw = self._block(number).raw
        holder, index = divmod(self._table[number] >> self._cluster_bits, self._per_block)
        last = self._entries.last_used(raw)
        if last < 0 or holder != number or last != index:
            return last < 0
        others = bytearray(raw)
        self._entries.put(others, index, 0)
        return self._entries.last_used(others) < 0

    def _note_lowered(self, cluster: int, count: int) -> None:
        if self._lowered and sum(self._lowered[-1]) == cluster:
            first, before = self._lowered[-1]
            self._lowered[-1] = first, before + count
        elif len(self._lowered) < MOST_DISCARDS:
            self._lowered.append((cluster, count))

    def _discard(self) -> None:
        """Release clusters that became free: the header in the file does not refer to them any more."""
        free = sum(number for lowered in self._lowered for _, number in self.free_runs(*lowered))
        if free << self._cluster_bits < LEAST_DISCARD:
            return
        for cluster, count in self._lowered:
            self.give_back(cluster, count)

    def _block_to_change(self, number: int) -> CachedTable:
        if number in self._own:
            return self._block(number)
        assert not self._is_settled
        old = self._block(number)
        cluster = self._free_cluster(number)
        self._own.add(number)
        new = self._blocks.new(cluster << self._cluster_bits, bytearray(old.raw))
        self._table[number] = cluster << self._cluster_bits
        self.metadata.add(cluster)
        self._set(cluster, 1, 1)
        self._left.append((old.offset >> self._cluster_bits, 1))
        return new

    def _free_cluster(self, number: int = -1) -> int:
        """Find a free, uncounted cluster whose count is in block number or in a block that is already new."""
        while True:
            cluster, _ = self._hole(1) or self._at_end(1)
            holder = cluster // self._per_block
            if holder != number:
                self._block_to_change(holder)  # which may use this cluster
            if not self.get(cluster):
                return cluster

    def _gap(self, count: int) -> int | None:
        """Find count contiguous free, uncounted clusters in one block; None if a few searches fail."""
        looks = 0
        for number in range(len(self._table)):
            index = 0
            while self._table[number] and looks < MOST_LOOKS:
                looks += 1
                raw = self._block(number).raw
                index = self._entries.first_zero(raw, index)
                cluster = number * self._per_block + index
                if index >= self._per_block or cluster + count > self._end:
                    break
                found = self._entries.zeros_from(raw, index, count)
                if found == count and self.metadata.first_of(cluster, count) is None:
                    self._block_to_change(number)  # which may use one of these
                    if self._entries.are(self._block(number).raw, index, count, 0):
                        return cluster
                index += found
        return None

    def _make_block(self, number: int, cluster: int) -> None:
        super()._make_block(number, cluster)
        self._own.add(number)

    def _raise_in(self, block: CachedTable, index: int, count: int) -> None:
        entries, raw = self._entries, block.raw
        if entries.largest > 1 and entries.are(raw, index, count, 1):
            entries.fill(raw, index, count, 2)
        else:
            for at in range(index, index + count):
                value = entries.get(raw, at)
                if value >= entries.largest:
                    raise UnsupportedImageError(
                        f"{self._store.name}: a cluster has {value} references, and reference counts of "
                        f"{1 << entries.order} bits count no more; nothing was changed"
                    )
                entries.put(raw, at, value + 1)
        self._blocks.changed(block, *entries.span(index, count))

    def _write_when_crowded(self) -> None:
        """Changed blocks are new ones, which may be written at any time."""
        if self._blocks.is_crowded:
            self._blocks.write()
