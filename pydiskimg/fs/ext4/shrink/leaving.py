# SPDX-License-Identifier: MIT
"""The blocks that must be empty before a file system shrinks. Pure arithmetic.

These are all from the new end on, and with sparse_super2 those for the copies of superblock and descriptors in the new
last group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydiskimg.fs.ext4.bitmaps import Run
from pydiskimg.fs.ext4.geometry import Geometry


@dataclass(frozen=True, slots=True)
class LeavingBlocks:
    """head is whole clusters, or empty; end is a whole number of clusters, too."""

    head: Run
    end: int

    def touch(self, block: int, count: int = 1) -> bool:
        """True if one of count blocks from block on is among them."""
        return block + count > self.end or (block < self.head[1] and block + count > self.head[0])

    def parts(self, block: int, count: int) -> Iterator[tuple[int, int, bool]]:
        """Divide a run of blocks into parts that are among them and parts that are not; ascending."""
        at, stop = block, block + count
        while at < stop:
            following = min((edge for edge in (*self.head, self.end) if edge > at), default=stop)
            length = min(following, stop) - at
            yield at, length, self.touch(at)
            at += length


def leaving_blocks(old: Geometry, new: Geometry) -> LeavingBlocks:
    """Return the blocks that must be empty before old becomes new."""
    last = new.groups - 1
    start = new.group_start(last)
    before, after = (shape.clusters_in(shape.group_head(last)) * shape.cluster_blocks for shape in (old, new))
    head = (start + before, start + after) if after > before else (0, 0)
    return LeavingBlocks(head, new.blocks)
