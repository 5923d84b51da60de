# SPDX-License-Identifier: MIT
"""Sets of byte ranges in bounded memory, queried in any order."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from pydiskimg.units import KIB

MAX_RANGES = 1 << 20
_FIRST_GAP = 4 * KIB


class RangeList:
    """Ascending ranges, each its first byte (or block) and the one after its last; 16 bytes of memory each.

    When there are more than max_ranges, those closest together are joined across the gap between them, so the list may
    cover more than the input, but never less.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]], *, max_ranges: int = MAX_RANGES) -> None:
        """Add ranges, which ascend and do not overlap; empty ones are skipped, neighbours joined."""
        self._starts, self._ends = array("Q"), array("Q")
        gap = 0
        for start, end in ranges:
            if start >= end:
                continue
            if self._ends and start - self._ends[-1] <= gap:
                self._ends[-1] = end
                continue
            self._starts.append(start)
            self._ends.append(end)
            while len(self._starts) > max_ranges:
                gap = 2 * gap or _FIRST_GAP
                self._join(gap)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of the ranges that lie in [start, end), ascending."""
        index = max(bisect_right(self._starts, start) - 1, 0)
        while index < len(self._starts) and self._starts[index] < end:
            first, last = max(self._starts[index], start), min(self._ends[index], end)
            if first < last:
                yield first, last
            index += 1

    def _join(self, gap: int) -> None:
        """Join ranges that are no further apart than gap."""
        starts, ends = self._starts, self._ends
        kept = 0
        for index in range(1, len(starts)):
            if starts[index] - ends[kept] > gap:
                kept += 1
                starts[kept] = starts[index]
            ends[kept] = ends[index]
        del starts[kept + 1 :], ends[kept + 1 :]
