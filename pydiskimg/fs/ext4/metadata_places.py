# SPDX-License-Identifier: MIT
"""Where the bitmaps and inode tables of all groups lie: they must be in use, whatever a bitmap says."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from pydiskimg.fs.ext4.descriptors import place_problem, places, read_descriptors
from pydiskimg.fs.ext4.doubt import NotBelievedError
from pydiskimg.fs.ext4.volume import Volume
from pydiskimg.protocols import Source

# Groups lie next to each other in all that mke2fs and resize2fs make: 16 TiB of ext4 have about 25000 runs.
_MOST = 1 << 20


class MetadataPlaces:
    """Runs of blocks, ascending, none of them twice; 16 bytes each."""

    def __init__(self, source: Source, volume: Volume) -> None:
        """Go through all descriptors. Raises NotBelievedError when two groups name one block, and as reading does."""
        self._starts, self._ends = array("Q"), array("Q")
        last: list[int] = [-1, -1, -1]  # the run that each kind was added to before
        for descriptor in read_descriptors(source, volume):
            if place_problem(volume, descriptor) is None:
                for kind, (_, block, count) in enumerate(places(volume, descriptor)):
                    last[kind] = self._add(last[kind], block, block + count)
                if len(self._starts) > _MOST:
                    raise NotBelievedError(volume.name, f"its bitmaps and inode tables are in more than {_MOST} places")
        self._sort(volume)

    def within(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of the runs that are in [first, end), each as its first block and the one after its last."""
        index = max(bisect_right(self._starts, first) - 1, 0)
        while index < len(self._starts) and self._starts[index] < end:
            start, stop = max(self._starts[index], first), min(self._ends[index], end)
            if start < stop:
                yield start, stop
            index += 1

    def _add(self, before: int, start: int, end: int) -> int:
        if before >= 0 and self._ends[before] == start:
            self._ends[before] = end
            return before
        self._starts.append(start)
        self._ends.append(end)
        return len(self._starts) - 1

    def _sort(self, volume: Volume) -> None:
        order = sorted(range(len(self._starts)), key=self._starts.__getitem__)
        starts, ends = array("Q"), array("Q")
        for index in order:
            start, end = self._starts[index], self._ends[index]
            if ends and start < ends[-1]:
                raise NotBelievedError(volume.name, f"two bitmaps or inode tables lie at block {start}")
            if ends and start == ends[-1]:
                ends[-1] = end
            else:
                starts.append(start)
                ends.append(end)
        self._starts, self._ends = starts, ends
