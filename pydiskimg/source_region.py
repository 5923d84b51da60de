# SPDX-License-Identifier: MIT
"""A byte range of a Source that is itself a Source: a partition that is only read."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.extents import Extent
from pydiskimg.protocols import Source, WritableBuffer, check_range


class SourceRegion:
    """[start, start + length) of a Source (bytes). Offsets count from start; errors name the source and the region.

    Raises ValueError when the range is not inside the source, which stays the caller's.
    """

    def __init__(self, source: Source, start: int, length: int, *, name: str | None = None) -> None:
        check_range(source, start, length)
        self.source = source
        self.start = start
        self.size = length
        self.name = name or f"{source.name} (bytes {start} to {start + length})"

    def extents(self) -> Iterator[Extent]:
        end = self.start + self.size
        for extent in self.source.extents():
            first, last = max(extent.start, self.start), min(extent.end, end)
            if first < last:
                yield Extent(first - self.start, last - first, extent.kind)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_range(self, offset, len(buffer))
        self.source.read_into(self.start + offset, buffer)
