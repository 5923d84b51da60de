# SPDX-License-Identifier: MIT
"""Free leaked clusters by changing their counts in place: each write leaves fewer leaks, and changes nothing else."""

from __future__ import annotations

from array import array
from typing import cast

from pydiskimg.images.qcow2.check.reference_counter import agree
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.refcount_reader import MANY, REFTABLE_RESERVED, RefcountReader, read_padded
from pydiskimg.images.qcow2.repair.references import References
from pydiskimg.images.qcow2.write.refcount_entries import RefcountEntries
from pydiskimg.protocols import Source, Store
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.check.reference_counter import ReferenceCounter

_SECTOR = 512


def free_leaks(store: Store, *, to_one: bool) -> bool:
    """Lower the counts of the image in store that are higher than the references; durable on return.

    A cluster with one reference afterwards also needs the copied flag: without to_one such a count is not changed.
    Return False if some were left. Raises as check_qcow2() and for a store that cannot be written.
    """
    freeing = _Freeing(store, to_one=to_one)
    freeing.run()
    store.flush()
    return freeing.is_complete


class _Freeing:
    def __init__(self, store: Store, *, to_one: bool) -> None:
        self.is_complete = True
        self._to_one = to_one
        self._store = store
        self._file = cast("Source", store)
        self._header = read_header(store, tables_inside=False)
        self._reader = RefcountReader(self._file, self._header)
        self._entries = RefcountEntries(self._header.refcount_order)

    def run(self) -> None:
        References(self._file, self._header, self._window, is_rebuilt=False).run()

    def _window(self, counter: ReferenceCounter) -> None:
        for first, references, stored in counter.pages(counter.end):
            if agree(references, stored):
                continue
            for number, (found, count) in enumerate(zip(array("H", references), stored, strict=True)):
                if count > found or count == MANY:
                    self._lower(first + number, found)

    def _lower(self, cluster: int, found: int) -> None:
        if self._reader.is_unreadable(cluster) or self._reader.count(cluster) <= found:
            return
        if found == 1 and not self._to_one:
            self.is_complete = False
            return
        number, index = divmod(cluster, self._reader.block_clusters)
        offset = self._reader.entries[number] & ~REFTABLE_RESERVED
        low, high = self._entries.span(index)
        start, end = low // _SECTOR * _SECTOR, -(-high // _SECTOR) * _SECTOR
        raw = read_padded(self._file, offset + start, end - start)
        self._entries.put(raw, index - (start * 8 >> self._header.refcount_order), found)
        self._store.write(offset + start, raw)
