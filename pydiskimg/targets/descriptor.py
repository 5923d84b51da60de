# SPDX-License-Identifier: MIT
"""What block devices and regular files have in common: a Disk over an open descriptor."""

from __future__ import annotations

import os

from pydiskimg.errors import storage_error
from pydiskimg.extents import Extent, Kind
from pydiskimg.linux.fileio import pread_into, pwrite_all
from pydiskimg.protocols import check_range
from pydiskimg.targets.zeroing import ZeroLadder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydiskimg.protocols import Buffer, WritableBuffer
    from pydiskimg.targets.zeroing import Rung


class DescriptorDisk:
    """A Disk over a descriptor that the caller opened and closes.

    size and sector_size are bytes. Everything is one DATA extent: a disk is read as what it holds.
    """

    def __init__(
        self,
        fd: int,
        name: str,
        *,
        size: int,
        sector_size: int,
        rungs: Sequence[Rung],
        zero_alignment: int,
        reads_as_zero: bool = False,
    ) -> None:
        self.fd = fd
        self.name = name
        self.size = size
        self.sector_size = sector_size
        self.reads_as_zero = reads_as_zero
        self.ladder = ZeroLadder(
            name,
            rungs,
            write=lambda offset, zeros: pwrite_all(fd, offset, zeros, name=name),
            alignment=zero_alignment,
        )

    def extents(self) -> Iterator[Extent]:
        if self.size:
            yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_range(self, offset, len(buffer))
        pread_into(self.fd, offset, buffer, name=self.name)

    def write(self, offset: int, data: Buffer) -> None:
        check_range(self, offset, len(data))
        pwrite_all(self.fd, offset, data, name=self.name)

    def zero(self, offset: int, length: int) -> None:
        check_range(self, offset, length)
        self.ladder.zero(offset, length)

    def flush(self) -> None:
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise storage_error(error, self.name, "cannot flush written data to stable storage") from error

    def drop_cache(self) -> None:
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
