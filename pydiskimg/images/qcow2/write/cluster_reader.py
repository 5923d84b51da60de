# SPDX-License-Identifier: MIT
"""Reading the clusters of an image that is being written, as L2 entries say where they are."""

from __future__ import annotations

from array import array

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.compressed import Decompress, decompressor
from pydiskimg.images.qcow2.header import Header
from pydiskimg.protocols import Source, Store


class ClusterReader:
    """Reads what entries refer to. Safe from several threads; the entries must stay true meanwhile."""

    def __init__(self, store: Store, header: Header, backing: Source | None) -> None:
        self._store = store
        self._name = store.name
        self._size = header.cluster_size
        self._compression_type = header.compression_type
        self._backing = backing
        self._compressed_at = header.compressed_at
        self._decompress: Decompress | None = None

    def read(self, cluster: int, count: int, entries: array[int] | None, start: int, view: memoryview) -> None:
        """Fill view with what is at start (bytes) of the disk, inside of count clusters; None: nothing is mapped."""
        if entries is None:
            self._read_unmapped(start, view)
            return
        end, index = start + len(view), 0
        while index < count:
            after = self._end_of_run(entries, index, count)
            first = max(start, (cluster + index) * self._size)
            last = min(end, (cluster + after) * self._size)
            inside = first - (cluster + index) * self._size
            self._read_run(entries[index], first, inside, view[first - start : last - start])
            index = after

    def _end_of_run(self, entries: array[int], index: int, count: int) -> int:
        """The first index whose cluster does not continue that of index."""
        entry, after = entries[index], index + 1
        if entry & layout.L2_COMPRESSED:
            return after
        step = 0 if entry & layout.L2_ZERO or not entry & layout.ENTRY_OFFSET else self._size
        while after < count and entries[after] == entries[after - 1] + step:
            after += 1
        return after

    def _read_run(self, entry: int, start: int, inside: int, view: memoryview) -> None:
        if entry & layout.L2_COMPRESSED:
            view[:] = memoryview(self._decompressed(entry, start))[inside : inside + len(view)]
        elif entry & layout.L2_ZERO:
            view[:] = bytes(len(view))
        elif not entry & layout.ENTRY_OFFSET:
            self._read_unmapped(start, view)
        else:
            offset = (entry & layout.ENTRY_OFFSET) + inside
            if offset + len(view) > self._store.size:
                raise self._corrupt(start, f"is at 0x{offset:x} and ends beyond the end of the file")
            self._store.read_into(offset, view)

    def _read_unmapped(self, start: int, view: memoryview) -> None:
        behind = 0
        if self._backing is not None:
            behind = max(0, min(len(view), self._backing.size - start))
            if behind:
                self._backing.read_into(start, view[:behind])
        view[behind:] = bytes(len(view) - behind)

    def _decompressed(self, entry: int, start: int) -> bytes:
        offset, length = self._compressed_at(entry)
        stored = bytearray(max(0, min(length, self._store.size - offset)))
        self._store.read_into(offset, stored)
        if self._decompress is None:
            self._decompress = decompressor(self._compression_type, name=self._name)
        try:
            cluster = self._decompress(memoryview(stored), self._size)
        except ValueError as error:
            raise self._corrupt(start, f"does not decompress ({error})") from error
        if len(cluster) != self._size:
            raise self._corrupt(start, f"decompresses to {len(cluster)} bytes, expected {self._size}")
        return cluster

    def _corrupt(self, start: int, what: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._name}: the cluster of guest offset {start // self._size * self._size} {what}; "
            "the image is truncated or corrupt"
        )
