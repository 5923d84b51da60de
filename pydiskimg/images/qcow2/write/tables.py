# SPDX-License-Identifier: MIT
"""Clusters of metadata in memory (L2 tables, refcount blocks): read, changed, written back; bounded."""

from __future__ import annotations

from collections import OrderedDict

from pydiskimg.protocols import Store

_WRITE_UNIT = 512  # changed tables are written in whole sectors


class CachedTable:
    """A cluster of metadata: its offset in the file, its bytes, and [low, high), the changed part."""

    __slots__ = ("high", "low", "offset", "raw")

    def __init__(self, offset: int, raw: bytearray) -> None:
        self.offset = offset
        self.raw = raw
        self.low = self.high = 0


class TableCache:
    """The tables of one kind. Its caller holds the lock, and calls changed() after changing a table's bytes.

    capacity is bytes, for clean tables and for changed ones each; only get() and new() may drop a table that is in use.
    The caller must write changed ones when is_crowded.
    """

    def __init__(self, store: Store, cluster_size: int, capacity: int) -> None:
        self._store = store
        self._cluster_size = cluster_size
        self._most = max(2, capacity // cluster_size)
        self._clean: OrderedDict[int, CachedTable] = OrderedDict()
        self._changed: dict[int, CachedTable] = {}

    @property
    def is_changed(self) -> bool:
        """True if there are changes to write."""
        return bool(self._changed)

    @property
    def is_crowded(self) -> bool:
        """True if the changed tables should be written before further changes."""
        return len(self._changed) >= self._most

    def holds(self, offset: int) -> bool:
        """True if the table at offset was changed and not written yet."""
        return offset in self._changed

    def get(self, offset: int) -> CachedTable:
        """The table at offset of the file, which must have a whole cluster there."""
        table = self._changed.get(offset)
        if table is not None:
            return table
        table = self._clean.get(offset)
        if table is None:
            table = CachedTable(offset, bytearray(self._cluster_size))
            self._store.read_into(offset, table.raw)
            self._keep(table)
        else:
            self._clean.move_to_end(offset)
        return table

    def new(self, offset: int, raw: bytearray) -> CachedTable:
        """A table that is not in the file yet; raw becomes the cache's."""
        self._clean.pop(offset, None)
        table = CachedTable(offset, raw)
        self.changed(table, 0, len(raw))
        return table

    def changed(self, table: CachedTable, low: int, high: int) -> None:
        """Note that the bytes [low, high) of table must be written."""
        if table.high:
            table.low, table.high = min(table.low, low), max(table.high, high)
            return
        table.low, table.high = low, high
        self._clean.pop(table.offset, None)
        self._changed[table.offset] = table

    def drop(self, offset: int) -> None:
        """Drop the table at offset, changed or not: it is not referred to any more."""
        self._clean.pop(offset, None)
        self._changed.pop(offset, None)

    def clear(self) -> None:
        """Drop every clean table, so that it is read again."""
        self._clean.clear()

    def write(self) -> None:
        """Write the changes. After an error nothing is dropped, and the call may be repeated."""
        for offset in sorted(self._changed):
            table = self._changed[offset]
            low = table.low // _WRITE_UNIT * _WRITE_UNIT
            high = -(-table.high // _WRITE_UNIT) * _WRITE_UNIT
            with memoryview(table.raw) as view:
                self._store.write(offset + low, view[low:high])
            table.low = table.high = 0
            del self._changed[offset]
            self._keep(table)

    def _keep(self, table: CachedTable) -> None:
        self._clean[table.offset] = table
        while len(self._clean) > self._most:
            self._clean.popitem(last=False)
