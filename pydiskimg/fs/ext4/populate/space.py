# SPDX-License-Identifier: MIT
"""Allocate free blocks from front to back, so that files that arrive together are stored together."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from pydiskimg.fs.ext4.bitmaps import Run
from pydiskimg.fs.ext4.placement import Placement


class FullError(OSError):
    """No block or inode is left; reason is a clause that says which, disk the name of the disk, "" for the memory."""

    def __init__(self, reason: str, disk: str = "") -> None:
        super().__init__(errno.ENOSPC, reason)
        self.reason = reason
        self.disk = disk


class Space:
    """The free blocks of a placement, which is not changed before settle().

    Freed blocks (of a file that a later entry of the archive replaces) are allocated again when no others are left.
    """

    def __init__(self, placement: Placement, disk_name: str) -> None:
        self._placement = placement
        self._disk_name = disk_name
        self._free = placement.free_runs()
        self._returned: list[Run] = []
        self._taken: list[Run] = []
        self._at = self._end = 0

    def allocate(self, goal: int, length: int) -> Run:  # noqa: ARG002 - an Allocator's
        """Allocate at least one and at most length blocks: the next ones, for any goal. Raises FullError."""
        if self._at == self._end:
            self._at, self._end = self._next_run()
        start, self._at = self._at, min(self._end, self._at + length)
        taken = self._taken
        if taken and taken[-1][1] == start:
            taken[-1] = taken[-1][0], self._at
        else:
            taken.append((start, self._at))
        return start, self._at

    def give_back(self, start: int, end: int) -> None:
        """Free the run [start, end), which was allocated."""
        if end > start:
            self._returned.append((start, end))

    def settle(self) -> None:
        """Tell the placement which blocks are in use, after the last allocate()."""
        for start, end in _without(_joined(self._taken), _joined(self._returned)):
            self._placement.take(start, end)

    def _next_run(self) -> Run:
        found = next(self._free, None)
        if found is not None:
            return found
        if not self._returned:
            blocks = self._placement.geometry.blocks
            raise FullError(f"none of the file system's {blocks} blocks is free", self._disk_name)
        holes = _joined(self._returned)
        self._returned = []
        self._taken = [*_without(_joined(self._taken), holes)]
        self._free = iter(holes)
        return next(self._free)


def _joined(runs: list[Run]) -> list[Run]:
    """Return disjoint runs in ascending order, neighbours joined."""
    found: list[Run] = []
    for start, end in sorted(runs):
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found


def _without(runs: list[Run], holes: list[Run]) -> Iterator[Run]:
    """Yield ascending runs without holes, which are ascending, too, and each inside a run."""
    at = 0
    for first, end in runs:
        start = first
        while at < len(holes) and holes[at][0] < end:
            if holes[at][0] > start:
                yield start, holes[at][0]
            start = holes[at][1]
            at += 1
        if start < end:
            yield start, end
