# SPDX-License-Identifier: MIT
"""Count the references to each cluster of the file, for a window of clusters at a time.

        0            first          end                  clusters of the file
        |- - - - - - |==== window ====|- - - - - - |     the rest is left to other passes

Memory depends on the window only: 3 bytes for each of its clusters, and none for stretches that are never touched.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from functools import lru_cache

from pydiskimg.errors import storage_error
from pydiskimg.images.qcow2.refcount_reader import MANY, RefcountReader
from pydiskimg.images.qcow2.words import is_zero, length_in_use

# Clusters in a window: those of 2 TiB in clusters of 64 KiB, with their tables, so that such images need one pass.
WINDOW = 34 << 20
PAGE = 64 << 10
MAX_COUNT = 0xFFFF

_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)


class ReferenceCounter:
    """The references found so far to the clusters [first, end), and the counts that the file stores for them.

    references has the clusters' numbers of references, 16 bits each; stored one byte each as
    RefcountReader.blocks() gives them. lost counts the references beyond MAX_COUNT of any cluster.
    """

    def __init__(self, reader: RefcountReader, first: int, last_end: int) -> None:
        """last_end is the end of the last window."""
        self.first = first
        self.end = end = min(first + WINDOW, last_end)
        self.is_last = end == last_end
        # Clusters from here on have no count: the refcount table ends.
        self.counted = len(reader.entries) * reader.block_clusters
        self.lost = 0
        self._reader = reader
        self._references = _zeros(max(1, (end - first) * 2))
        self._stored = _zeros(max(1, end - first))
        for cluster, counts in reader.blocks(first, end):
            if not is_zero(counts):
                self._stored[cluster - first : cluster - first + len(counts)] = counts
        self.references = memoryview(self._references).cast("H")
        self.stored = memoryview(self._stored)

    def close(self) -> None:
        """Free the memory."""
        self.references.release()
        self.stored.release()
        self._references.close()
        self._stored.close()

    def saturate(self, index: int, times: int) -> None:
        """Add times references to the cluster at index of the window, whose counter may overflow."""
        total = self.references[index] + times
        self.references[index] = min(total, MAX_COUNT)
        self.lost += max(0, total - MAX_COUNT)

    def add(self, cluster: int, count: int, times: int = 1) -> None:
        """Add times references to those of count clusters that are in the window."""
        start, stop = max(cluster, self.first) - self.first, min(cluster + count, self.end) - self.first
        for at in range(start, stop, PAGE):
            self._add_in_page(at, min(at + PAGE, stop), times)

    def _add_in_page(self, start: int, stop: int, times: int) -> None:
        now = self._references[start * 2 : stop * 2]
        if times < MAX_COUNT and is_zero(now):
            self._references[start * 2 : stop * 2] = times.to_bytes(2, sys.byteorder) * (stop - start)
        elif times + (max(now[_HIGH::2]) + 1) * 256 <= MAX_COUNT:
            total = int.from_bytes(now, sys.byteorder) + times * _ones(stop - start)
            self._references[start * 2 : stop * 2] = total.to_bytes(len(now), sys.byteorder)
        else:
            for index in range(start, stop):
                self.saturate(index, times)

    def are_stored_once(self, start: int, stop: int) -> bool:
        """True if each of the clusters at start to stop of the window has a stored count of exactly 1."""
        return self._stored[start:stop] == b"\1" * (stop - start)

    def pages(self, end: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (cluster, references, stored) for pages of the window before cluster end that are not all zero."""
        size = min(self.end, end) - self.first
        for at in range(0, size, PAGE):
            stop = min(at + PAGE, size)
            references, stored = self._references[at * 2 : stop * 2], self._stored[at:stop]
            if not (is_zero(references) and is_zero(stored)):
                yield self.first + at, references, stored

    def is_unreadable(self, cluster: int) -> bool:
        """True if the file's count of the cluster cannot be looked up."""
        return self._reader.is_unreadable(cluster)

    def stored_count(self, cluster: int) -> int:
        """The count that the file stores for any cluster."""
        if self.first <= cluster < self.end and (count := self.stored[cluster - self.first]) < MANY:
            return count
        return self._reader.count(cluster) if cluster < self.counted else 0


def _zeros(length: int) -> mmap.mmap:
    """Private memory that is zero; pages that are never written take no space."""
    try:
        return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise storage_error(error, "checking", f"the system has no {length} bytes of memory") from error


def agree(references: bytes, stored: bytes) -> bool:
    """True if a page's numbers of references equal its stored counts and none is too large to compare."""
    return references[_LOW::2] == stored and is_zero(references[_HIGH::2]) and MANY not in stored


def used_clusters(references: bytes, stored: bytes) -> int:
    """The length of a page up to the last cluster with references or a stored count."""
    referenced = 0 if is_zero(references) else -(-length_in_use(references) // 2)
    return referenced if is_zero(stored) else max(referenced, length_in_use(stored))


@lru_cache(16)
def _ones(count: int) -> int:
    """The number with a 1 in each of count words of 16 bits."""
    return int.from_bytes(b"\0\1" * count, "big")
