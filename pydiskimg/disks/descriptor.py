# SPDX-License-Identifier: MIT
"""The common part of block devices and regular files: a Disk over an open descriptor."""

from __future__ import annotations

import errno
import os
from abc import abstractmethod

from pydiskimg.errors import StorageError, closed_error, read_only_error, storage_error
from pydiskimg.linux.fileio import pread_into, pwrite_all
from pydiskimg.protocols import Disk, check_buffer, check_range
from pydiskimg.startup import TYPE_CHECKING, cached_property

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydiskimg.disks.zeroing import Rung, ZeroLadder
    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Buffer, FileRange, WritableBuffer


class BorrowedDescriptor:
    """A descriptor that the caller opened and closes, with its name for messages.

    The caller calls release() before it closes the descriptor: the system gives the number to the next file, which must
    not be written to.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name
        self._flush_error: OSError | None = None

    @property
    def fd(self) -> int:
        """The descriptor. Raises StorageError after release()."""
        if self._fd < 0:
            raise closed_error(self.name)
        return self._fd

    def release(self) -> None:
        """Refuse all further calls; none may be running."""
        self._fd = -1

    def flush(self) -> None:
        fd = self.fd
        try:
            # The kernel reports lost pages once, and then treats them as clean: after a failure no flush can succeed.
            if self._flush_error is not None:
                raise self._flush_error
            os.fsync(fd)
        except OSError as error:
            self._flush_error = error
            raise storage_error(error, self.name, "cannot flush written data to stable storage") from error

    def share_blocks(self, offset: int, ranges: Sequence[FileRange]) -> bool:
        """Let the file have the blocks of ranges from offset on; False if the system refuses one of them."""
        from pydiskimg.linux.reflink import share_blocks

        try:
            for source, position, length in ranges:
                share_blocks(self.fd, offset, source, position, length)
                offset += length
        except OSError:  # as on most file systems: nothing is said of it, and no module imported for that
            return False
        return True

    def drop_cache(self) -> None:
        """Make the next reads come from the device if the system can do that; call flush() first."""
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)


class DescriptorDisk(BorrowedDescriptor, Disk):
    """A Disk over a descriptor that the caller opened and closes, after release().

    size, sector_size and zero_alignment are bytes; the ways of rungs() zero multiples of zero_alignment. extents() is
    one DATA extent: all of a disk is read.
    """

    size: int
    sector_size: int
    reads_as_zero: bool
    is_block_device = False
    zero_alignment = 1

    def __init__(
        self,
        fd: int,
        name: str,
        *,
        size: int,
        sector_size: int,
        reads_as_zero: bool = False,
    ) -> None:
        super().__init__(fd, name)
        self.size = size
        self.sector_size = sector_size
        self.reads_as_zero = reads_as_zero

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the file, as of a RawSource."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    @abstractmethod
    def rungs(self) -> Sequence[Rung]:
        """Return the ways to zero that this kind of file has, the cheapest first."""

    @cached_property
    def ladder(self) -> ZeroLadder:
        """Zeroes by the first of rungs() that works; made on first use."""
        from pydiskimg.disks.zeroing import ZeroLadder

        fd, name = self.fd, self.name

        def write(offset: int, zeros: memoryview) -> None:
            pwrite_all(fd, offset, zeros, name=name)

        return ZeroLadder(name, self.rungs(), write=write, alignment=self.zero_alignment)

    @property
    def frees_zeros(self) -> bool:
        return self.ladder.frees

    def extents(self) -> Iterator[Extent]:
        from pydiskimg.extents import Extent, Kind  # imported here: changing an image needs no zeroing

        if self.fd >= 0 and self.size:
            yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        pread_into(self.fd, offset, buffer, name=self.name)

    def write(self, offset: int, data: Buffer) -> None:
        check_buffer(self, offset, data)
        fd = self.fd
        try:
            pwrite_all(fd, offset, data, name=self.name)
        except StorageError as error:
            if error.errno == errno.EBADF:
                raise read_only_error(self.name) from error
            raise

    def zero(self, offset: int, length: int) -> None:
        self._by_ladder(self.ladder.zero, offset, length)

    def free(self, offset: int, length: int) -> bool:
        """Make [offset, offset + length) read as zero without writing zeros; False if that is not possible."""
        return bool(self._by_ladder(self.ladder.free, offset, length))

    def _by_ladder(self, do: Callable[[int, int], bool | None], offset: int, length: int) -> bool | None:
        check_range(self, offset, length)
        if self.fd < 0:  # raises if the disk was released: the ladder keeps the number
            return None
        try:
            return do(offset, length)
        except StorageError as error:
            if error.errno == errno.EBADF:
                raise read_only_error(self.name) from error
            raise
