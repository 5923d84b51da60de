# SPDX-License-Identifier: MIT
"""A byte range of a Disk that is itself a Disk: a partition."""

from __future__ import annotations

from pydiskimg.protocols import Buffer, Disk, check_range
from pydiskimg.source_region import SourceRegion


class Region(SourceRegion):
    """[start, start + length) of a Disk (bytes). Offsets count from start; errors name the disk and the region.

    Raises ValueError when the range is not inside the disk. The disk stays the caller's.
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

    def write(self, offset: int, data: Buffer) -> None:
        check_range(self, offset, len(data))
        self.disk.write(self.start + offset, data)

    def zero(self, offset: int, length: int) -> None:
        check_range(self, offset, length)
        self.disk.zero(self.start + offset, length)

    def flush(self) -> None:
        self.disk.flush()

    def drop_cache(self) -> None:
        self.disk.drop_cache()
