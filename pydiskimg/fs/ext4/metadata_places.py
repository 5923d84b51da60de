# SPDX-License-Identifier: MIT
"""Where the bitmaps and inode tables of all groups lie: they must be in use, whatever a bitmap says."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from pydiskimg.fs.ext4.descriptors import place_problem, places, read_descriptors
from pydiskimg.fs.ext4.doubt import NotBelievedError
from pydiskimg.fs.ext4.volume import Volume
from pydiskimg.protocols import Source
from pydiskimg.range_list import MAX_RANGES, RangeList

# Groups lie next to each other in all that mke2fs and resize2fs make: 16 TiB of ext4 have about 25000 runs.
_MOST = MAX_RANGES


def metadata_places(source: Source, volume: Volume) -> RangeList:
    """Go through all descriptors and return the runs of blocks that hold their bitmaps and inode tables.

    Raises NotBelievedError when two groups name one block, and as reading does.
    """
    starts, ends = array("Q"), array("Q")
    last = [-1, -1, -1]  # the run that each kind was added to before
    for descriptor in read_descriptors(source, volume):
        if place_problem(volume, descriptor) is not None:
            continue
        for kind, (_, block, count) in enumerate(places(volume, descriptor)):
            if last[kind] >= 0 and ends[last[kind]] == block:
                ends[last[kind]] += count
                continue
            last[kind] = len(starts)
            starts.append(block)
            ends.append(block + count)
        if len(starts) > _MOST:
            raise NotBelievedError(volume.name, f"its bitmaps and inode tables are in more than {_MOST} places")
    return RangeList(_ascending(starts, ends, volume.name))


def _ascending(starts: array[int], ends: array[int], name: str) -> Iterator[tuple[int, int]]:
    behind = 0
    for index in sorted(range(len(starts)), key=starts.__getitem__):
        if starts[index] < behind:
            raise NotBelievedError(name, f"two bitmaps or inode tables lie at block {starts[index]}")
        behind = ends[index]
        yield starts[index], behind
