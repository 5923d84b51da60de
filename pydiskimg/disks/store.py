# SPDX-License-Identifier: MIT
"""The storage of an image's own bytes while it is written: a regular file that grows, or a device of fixed size."""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock

from pydiskimg.disks.descriptor import BorrowedDescriptor, DescriptorDisk
from pydiskimg.errors import StorageError, storage_error
from pydiskimg.linux.fileio import grow_file, pread_into, pwrite_all
from pydiskimg.protocols import Buffer, Disk, Store, WritableBuffer
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydiskimg.protocols import FileRange


class GrowingFile(BorrowedDescriptor, Store):
    """A Store over the descriptor of a regular file, which the caller owns and no other process may write meanwhile."""

    size: int
    grows = True

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd, name)
        self.size = os.fstat(fd).st_size
        self._lock = allocate_lock()
        self._has_holes = True

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        pread_into(self.fd, offset, buffer, name=self.name)

    def write(self, offset: int, data: Buffer) -> None:
        with self._lock:  # see FileDisk.write()
            pwrite_all(self.fd, offset, data, name=self.name)
            self.size = max(self.size, offset + len(data))

    def share(self, offset: int, ranges: Sequence[FileRange]) -> bool:
        with self._lock:
            is_done = self.share_blocks(offset, ranges)
            self.size = max(self.size, os.fstat(self.fd).st_size)
        return is_done

    def extend(self, size: int) -> None:
        with self._lock:
            if self.size >= size:
                return
            grow_file(self.fd, size, name=self.name)
            self.size = size

    def discard(self, offset: int, length: int) -> None:
        """Make a hole if the file system can; otherwise the bytes only waste space."""
        length = min(length, self.size - offset)
        if length > 0 and self._has_holes:
            from pydiskimg.linux.fallocate import punch_hole

            try:
                punch_hole(self.fd, offset, length)
            except OSError:
                self._has_holes = False


class FixedStore(Store):
    """A Store over a Disk that keeps its size, such as a block device; the Disk stays the caller's."""

    name: str
    size: int

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.name = disk.name
        self.size = disk.size

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self.disk.read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:
        end = offset + len(data)
        if end > self.size:
            raise StorageError(
                f"{self.name}: is too small: the image needs {format_bytes(end)} or more, "
                f"the device has {format_bytes(self.size)}; the image on it is incomplete",
                errno=errno.ENOSPC,
                filename=self.name,
                tells_what_is_left=True,
            )
        self.disk.write(offset, data)

    def flush(self) -> None:
        self.disk.flush()

    def drop_cache(self) -> None:
        """Make the next reads come from the device if the system can do that; call flush() first."""
        self.disk.drop_cache()


def store_of(disk: DescriptorDisk) -> Store:
    """Return the Store of the image on an open device or file; disk stays the caller's."""
    return FixedStore(disk) if disk.is_block_device else GrowingFile(disk.fd, disk.name)


def cut_file(disk: DescriptorDisk, end: int) -> None:
    """Cut the file of an image at end (bytes), after which it has no data; a device keeps its size."""
    if disk.is_block_device:
        return
    try:
        os.ftruncate(disk.fd, end)
    except OSError as error:
        raise storage_error(error, disk.name, f"cannot be cut at {end} bytes") from error
