# SPDX-License-Identifier: MIT
"""Change the width of the reference counts of a qcow2 image, by one write of its header.

header --> refcount table --> blocks of 16 bits        until then
  |  . . . . . . . . . . .
  +------> new table -------> new blocks of 64 bits     at the end of the file
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.images.qcow2.write.refcount_entries import RefcountEntries
from pydiskimg.images.qcow2.write.refcounts import Refcounts
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.protocols import Store

_AT_ONCE = 1 << 16  # counts that are converted in one step


def change_refcount_width(store: Store, bits: int) -> None:
    """Give the counts of the image in store bits bits each, a power of two from 1 to 64; durable on return.

    Raises UnsupportedImageError for a count that does not fit, for version 2, whose counts have 16 bits, and for a
    table that would be too long, InvalidImageError and StorageError; nothing was changed then.
    """
    header = read_header(store)
    require_changeable(header, store.name)
    order = bits.bit_length() - 1
    if order == header.refcount_order:
        return
    if header.version < 3:
        raise UnsupportedImageError(
            f"{store.name}: reference counts of version 2 (0.10) have 16 bits; use compat=1.1 for {bits}"
        )
    _Widening(store, order).run()


class _Plan(NamedTuple):
    """The numbers of the new blocks, and the clusters of the new structure: the blocks in order, the table."""

    numbers: list[int]
    first: int
    table_clusters: int

    @property
    def table(self) -> int:
        return self.first + len(self.numbers)

    @property
    def end(self) -> int:
        return self.table + self.table_clusters


class _Widening(Refcounts):
    def __init__(self, store: Store, order: int) -> None:
        header = read_header(store)
        super().__init__(store, header)
        self._autoclear = header.autoclear_features & layout.AUTOCLEAR_KNOWN
        self._new = RefcountEntries(order)
        self._per_new = self._new.per_block(self._cluster_size)
        first, count = self._table_offset >> self._cluster_bits, self._table_clusters
        old_blocks = (entry >> self._cluster_bits for entry in self._table if entry)
        self._left = sorted([*old_blocks, *range(first, first + count)])

    def run(self) -> None:
        plan = self._plan()
        table = bytearray(plan.table_clusters << self._cluster_bits)
        for index, number in enumerate(plan.numbers):
            offset = plan.first + index << self._cluster_bits
            self._store.write(offset, self._block_of(number, plan))
            table[number * 8 : number * 8 + 8] = offset.to_bytes(8, "big")
        self._store.write(plan.table << self._cluster_bits, table)
        self._store.flush()
        change_header(
            self._store,
            refcount_order=self._new.order,
            refcount_table_offset=plan.table << self._cluster_bits,
            refcount_table_clusters=plan.table_clusters,
            autoclear_features=self._autoclear,
        )
        self._store.flush()

    def _plan(self) -> _Plan:
        """Find the blocks with counts: of existing clusters, and of the new structure itself."""
        used = set(self._used_blocks())
        while True:
            numbers = sorted(used)
            entries = numbers[-1] + 1 if numbers else 1  # an image may count nothing at all
            table_clusters = -(-entries * layout.ENTRY_SIZE // self._cluster_size)
            plan = _Plan(numbers, self._end, table_clusters)
            own = range(plan.first // self._per_new, (plan.end - 1) // self._per_new + 1)
            if used.issuperset(own):
                break
            used.update(own)
        if table_clusters * self._cluster_size > layout.MAX_REFCOUNT_TABLE_SIZE:
            raise UnsupportedImageError(
                f"{self._store.name}: reference counts of {1 << self._new.order} bits need a table of "
                f"{table_clusters * self._cluster_size} bytes, and at most {layout.MAX_REFCOUNT_TABLE_SIZE} are "
                "possible; nothing was changed"
            )
        self._check_end(plan.end)
        return plan

    def _used_blocks(self) -> Iterator[int]:
        """Yield the numbers of new blocks with counts, once or more often; refuse a count that does not fit."""
        for number, offset in enumerate(self._table):
            for start in range(0, self._per_block if offset else 0, self._step):
                values = self._values(number, start)
                if values is None:
                    continue
                cluster = number * self._per_block + start
                if (most := max(values)) > self._new.largest:
                    at = cluster + list(values).index(most) << self._cluster_bits
                    raise UnsupportedImageError(
                        f"{self._store.name}: the cluster at 0x{at:x} has {most} references, and counts of "
                        f"{1 << self._new.order} bits are at most {self._new.largest}; nothing was changed"
                    )
                yield cluster // self._per_new

    @property
    def _step(self) -> int:
        return min(_AT_ONCE, self._per_block, self._per_new)

    def _values(self, number: int, start: int) -> list[int] | None:
        """The counts from entry start of an old block on, as many as a step has; None if they all are zero."""
        low, high = self._entries.span(start, self._step)
        raw = self._block(number).raw[low:high]
        return self._entries.unpacked(raw) if any(raw) else None

    def _block_of(self, number: int, plan: _Plan) -> bytearray:
        """The new block of this number."""
        block = bytearray(self._cluster_size)
        base = number * self._per_new
        for cluster in range(base, base + self._per_new, self._step):
            old, start = divmod(cluster, self._per_block)
            if old >= len(self._table):
                break
            if self._table[old] and (values := self._values(old, start)) is not None:
                low, high = self._new.span(cluster - base, self._step)
                block[low:high] = self._new.packed(values)
        for cluster in self._left[bisect_left(self._left, base) : bisect_left(self._left, base + self._per_new)]:
            if self._new.get(block, cluster - base) != 1:
                raise InvalidImageError(
                    f"{self._store.name}: the cluster at 0x{cluster << self._cluster_bits:x} holds reference counts, "
                    "but its own count is not 1; repair the image with: qemu-img check -r all"
                )
            self._new.put(block, cluster - base, 0)
        first, end = max(base, plan.first), min(base + self._per_new, plan.end)
        if first < end:
            self._new.fill(block, first - base, end - first, 1)
        return block
