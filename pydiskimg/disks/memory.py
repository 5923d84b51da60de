# SPDX-License-Identifier: MIT
"""A disk in memory, for tests and for callers without a file."""

from __future__ import annotations

import sys

from pydiskimg.extents import Extent, Kind
from pydiskimg.protocols import Disk, check_buffer, check_range
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.protocols import Buffer, WritableBuffer


class MemoryDisk(Disk):
    """A Disk in memory, for tests and for programs that have no file.

    size is bytes. Every byte is fill (0 to 255) at first; reads_as_zero is True when fill is 0. data is the bytearray
    that holds the contents, and bytes_written counts the bytes that write() was given.

    >>> from pydiskimg import MemoryDisk
    >>> disk = MemoryDisk(1 << 20, fill=0xFF, sector_size=4096)
    >>> disk.zero(0, 4096)
    >>> disk.data[4095], disk.data[4096], disk.reads_as_zero
    (0, 255, False)
    """

    name: str
    sector_size: int
    reads_as_zero: bool

    def __init__(self, size: int, *, fill: int = 0, sector_size: int = 512, name: str = "memory") -> None:
        if not 0 <= size <= sys.maxsize:
            raise ValueError(f"{name}: a size of {size} bytes is not possible in memory")
        self.data = bytearray([fill]) * size
        self.name = name
        self.sector_size = sector_size
        self.reads_as_zero = fill == 0
        self.bytes_written = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def extents(self) -> Iterator[Extent]:
        if self.data:
            yield Extent(0, len(self.data), Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        buffer[:] = self.data[offset : offset + len(buffer)]

    def write(self, offset: int, data: Buffer) -> None:
        check_buffer(self, offset, data)
        self.data[offset : offset + len(data)] = data
        self.bytes_written += len(data)

    def zero(self, offset: int, length: int) -> None:
        check_range(self, offset, length)
        self.data[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        """Do nothing: memory needs no flush."""
