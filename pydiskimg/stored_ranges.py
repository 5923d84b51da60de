# SPDX-License-Identifier: MIT
"""Which parts of a file the file system stores, for questions in any order."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from pydiskimg.extents import Kind
from pydiskimg.protocols import Source


class StoredRanges:
    """The extents of a source, read when they are first needed and kept as 8 bytes each.

    Of a raw file that is at most one extent for every block of the file system, and few in practice.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._starts = array("Q")
        self._stored = bytearray()

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (start, length, whether it is stored) for [offset, offset + length); beyond the end nothing is."""
        if not self._stored:
            self._read()
        end = offset + length
        index = bisect_right(self._starts, offset) - 1
        while offset < end:
            stop = min(self._starts[index + 1], end) if index + 1 < len(self._starts) else end
            yield offset, stop - offset, bool(self._stored[index])
            offset, index = stop, index + 1

    def _read(self) -> None:
        for extent in self._source.extents():
            self._starts.append(extent.start)
            self._stored.append(extent.kind is Kind.DATA)
        self._starts.append(self._source.size)
        self._stored.append(False)
