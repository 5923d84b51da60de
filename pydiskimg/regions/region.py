# SPDX-License-Identifier: MIT
"""A byte range of a Source or Disk that is itself a Source or Disk: a partition."""

from __future__ import annotations

from pydiskimg.protocols import Buffer, Disk, FileRange, Source, WritableBuffer, check_buffer, check_range
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.extents import Extent


class SourceRegion(Source):
    """Bytes start to start + length of a Source as a Source of its own; offsets count from start.

    name replaces the name that messages use, which otherwise names the source and the range. The source stays the
    caller's and must remain open. Raises ValueError when the range is not inside the source.

    >>> from pydiskimg import MemoryDisk, SourceRegion, read_bytes
    >>> disk = MemoryDisk(1 << 20)
    >>> disk.write(4096, b"data")
    >>> read_bytes(SourceRegion(disk, 4096, 512), 0, 4)
    b'data'
    """

    name: str
    size: int

    def __init__(self, source: Source, start: int, length: int, *, name: str | None = None) -> None:
        check_range(source, start, length)
        self.source = source
        self.start = start
        self.size = length
        self.name = name or f"{source.name} (bytes {start} to {start + length})"

    def extents(self) -> Iterator[Extent]:
        from pydiskimg.extents import Extent  # imported here: a region that is only read with read_into() needs none

        end = self.start + self.size
        for extent in self.source.extents():
            first, last = max(extent.start, self.start), min(extent.end, end)
            if first < last:
                yield Extent(first - self.start, last - first, extent.kind)
            if extent.end >= end:  # there may be millions of extents after it
                return

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        self.source.read_into(self.start + offset, buffer)

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:
        if not 0 <= offset <= offset + length <= self.size:
            return None
        return self.source.file_ranges(self.start + offset, length)


class Region(SourceRegion, Disk):
    """Bytes start to start + length of a Disk as a Disk of its own, such as a partition; offsets count from start.

    The sector size, zeroing and flush() are those of the disk, which stays the caller's and must remain open. Raises
    ValueError when the range is not inside the disk.

    >>> from pydiskimg import MemoryDisk, Region, make_ext
    >>> disk = MemoryDisk(32 << 20)
    >>> make_ext(Region(disk, 1 << 20, 31 << 20), label="data").size
    32505856
    """

    def __init__(self, disk: Disk, start: int, length: int, *, name: str | None = None) -> None:
        super().__init__(disk, start, length, name=name)
        self.disk = disk

    @property
    def sector_size(self) -> int:
        return self.disk.sector_size

    @property
    def reads_as_zero(self) -> bool:
        return self.disk.reads_as_zero

    @property
    def frees_zeros(self) -> bool:
        return self.disk.frees_zeros

    def write(self, offset: int, data: Buffer) -> None:
        check_buffer(self, offset, data)
        self.disk.write(self.start + offset, data)

    def zero(self, offset: int, length: int) -> None:
        check_range(self, offset, length)
        self.disk.zero(self.start + offset, length)

    def flush(self) -> None:
        self.disk.flush()

    def drop_cache(self) -> None:
        self.disk.drop_cache()
