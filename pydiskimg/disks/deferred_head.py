# SPDX-License-Identifier: MIT
"""A disk whose beginning is written last, so that an interrupted copy does not boot and has no signatures."""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.extents import Extent
from pydiskimg.protocols import Buffer, Disk, WritableBuffer, check_buffer, check_range
from pydiskimg.units import MIB

# Covers the boot code, the partition table, the primary GPT and the superblock of a file system without a table.
HEAD_SIZE = MIB


class DeferredHead(Disk):
    """A Disk over another one that keeps writes to the first MiB in memory until commit().

    The constructor zeroes the first and the last MiB of the disk, durably: an old partition table and its backup are
    gone before anything new is written. With keep_end the last MiB stays, for an image that is only the beginning of a
    disk whose end may have other data. The disk stays the caller's. Safe from several threads.
    """

    name: str
    size: int
    sector_size: int

    def __init__(self, disk: Disk, *, keep_end: bool = False) -> None:
        self.disk = disk
        self.name = disk.name
        self.size = disk.size
        self.sector_size = disk.sector_size
        self._head = bytearray(min(HEAD_SIZE, disk.size))
        if keep_end:
            disk.zero(0, len(self._head))
            disk.flush()
        else:
            wipe_partition_table(disk)

    @property
    def reads_as_zero(self) -> bool:
        return self.disk.reads_as_zero

    @property
    def head(self) -> bytes:
        """The data written to the first MiB so far."""
        return bytes(self._head)

    def commit(self) -> None:
        """Flush all other data, then write the beginning and flush that."""
        self.write_head(self._head)

    def write_head(self, head: Buffer) -> None:
        """Flush all other data, then write head as the beginning, instead of the one kept, and flush that."""
        self.disk.flush()
        self.disk.write(0, head)
        self.disk.flush()

    @property
    def frees_zeros(self) -> bool:
        return self.disk.frees_zeros

    def extents(self) -> Iterator[Extent]:
        return self.disk.extents()

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        self.disk.read_into(offset, buffer)
        kept = self._head[offset : offset + len(buffer)] if offset < len(self._head) else b""
        buffer[: len(kept)] = kept

    def write(self, offset: int, data: Buffer) -> None:
        check_buffer(self, offset, data)
        kept = self._kept(offset, len(data))
        with memoryview(data) as view:
            self._head[offset : offset + kept] = view[:kept]
            if kept < len(view):
                self.disk.write(offset + kept, view[kept:])

    def file_location(self, offset: int, length: int) -> tuple[int, int] | None:
        """Return the disk's file_location() for ranges after the head."""
        return None if self._kept(offset, length) else self.disk.file_location(offset, length)

    def zero(self, offset: int, length: int) -> None:
        check_range(self, offset, length)
        kept = self._kept(offset, length)
        self._head[offset : offset + kept] = bytes(kept)
        if kept < length:
            self.disk.zero(offset + kept, length - kept)

    def flush(self) -> None:
        """Flush all that is not kept back."""
        self.disk.flush()

    def drop_cache(self) -> None:
        self.disk.drop_cache()

    def _kept(self, offset: int, length: int) -> int:
        """Return how many of length bytes at offset belong to the head."""
        return max(0, min(length, len(self._head) - offset))
