# SPDX-License-Identifier: MIT
"""A Source as a Disk that refuses writes: to find out whether a change would be possible."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.errors import read_only_error
from pydiskimg.extents import Extent
from pydiskimg.protocols import Buffer, Disk, Source, WritableBuffer


class ReadOnlyDisk(Disk):
    """A Disk over a Source, which stays the caller's; each write raises StorageError (EBADF)."""

    name: str
    size: int
    sector_size: int
    reads_as_zero = False

    def __init__(self, source: Source, *, sector_size: int = 512) -> None:
        self.name = source.name
        self.size = source.size
        self.sector_size = sector_size
        self._source = source

    def extents(self) -> Iterator[Extent]:
        return self._source.extents()

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self._source.read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:  # noqa: ARG002 - a Disk's
        raise read_only_error(self.name)

    def zero(self, offset: int, length: int) -> None:  # noqa: ARG002 - a Disk's
        raise read_only_error(self.name)

    def flush(self) -> None:
        """Do nothing: there are no writes to flush."""
