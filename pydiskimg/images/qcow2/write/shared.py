# SPDX-License-Identifier: MIT
"""Contents of clusters that are in other files: clusters get their blocks instead of a copy (Store.share())."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from pydiskimg.protocols import FileRange

    Contents: TypeAlias = "memoryview | BytesInFiles"


class NotSharedError(Exception):
    """The blocks cannot be shared: the caller reads and writes the bytes."""


class BytesInFiles:
    """The bytes of ranges in files, one range after the other; it is cut by slices as a memoryview is."""

    def __init__(self, ranges: Sequence[FileRange]) -> None:
        self.ranges = ranges
        self._length = sum(length for _, _, length in ranges)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> BytesInFiles:
        start, stop, _ = part.indices(self._length)
        if (start, stop) == (0, self._length):
            return self
        found: list[FileRange] = []
        at = 0
        for fd, position, length in self.ranges:
            low, high = max(start, at), min(stop, at + length)
            if low < high:
                found.append((fd, position + low - at, high - low))
            at += length
        return BytesInFiles(found)
