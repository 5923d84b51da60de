# SPDX-License-Identifier: MIT
"""Open a block device or a regular file so that no other process writes to it meanwhile."""

from __future__ import annotations

import errno
import os
import stat

from pydiskimg.disks.file import FileDisk
from pydiskimg.errors import InUseError, StorageError, storage_error
from pydiskimg.host.claims import claim_device, claim_file
from pydiskimg.startup import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from contextlib import ExitStack
    from types import TracebackType

    from pydiskimg.disks.descriptor import DescriptorDisk
    from pydiskimg.protocols import Disk


AnyDisk = TypeVar("AnyDisk", bound="Disk")


class OpenDisk(Generic[AnyDisk]):
    """Owns a Disk's descriptor: a context manager that gives the Disk and closes its descriptor.

        with open_disk("/dev/drbd3", writable=True) as disk:
            disk.write(0, data)

    close() may be called repeatedly; using the Disk afterwards raises StorageError. Leaving the block does not flush a
    raw disk: call Disk.flush() before reporting success. A qcow2 image is flushed when the block is left without an
    error: otherwise it would not contain the data written since the last flush().
    """

    def __init__(self, disk: AnyDisk, stack: ExitStack, *, flush: bool = False) -> None:
        self.disk = disk
        self._stack = stack
        self._flush = flush

    def close(self) -> None:
        """Close the descriptor; raises StorageError when the system reports a late write error."""
        try:
            self._stack.close()
        except OSError as error:
            raise storage_error(error, self.disk.name, "cannot close") from error

    def __enter__(self) -> AnyDisk:
        return self.disk

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                if self._flush and error is None:
                    self.disk.flush()
            finally:
                self.close()
        except StorageError as late:
            if error is None:
                raise
            from logging import getLogger  # takes longer to import than this module, and is rarely needed

            getLogger(__name__).warning("%s (after another error, which is the one reported)", late)


class OpenRawDisk:
    """Owns the descriptors of a device or file: a context manager that gives the Disk, and then closes them."""

    def __init__(self, disk: DescriptorDisk, descriptors: list[int]) -> None:
        self.disk = disk
        self._descriptors = descriptors

    def close(self) -> None:
        """Close what was opened, in reverse order; may be called repeatedly. Raises OSError."""
        self.disk.release()
        _close(self._descriptors)

    def __enter__(self) -> DescriptorDisk:
        return self.disk

    def __exit__(self, *_: object) -> None:
        self.close()


def open_raw_disk(name: str, *, writable: bool) -> OpenRawDisk:
    """Open a device or file itself, as open_disk() describes it."""
    descriptors = [_open(name, writable=writable)]
    try:
        return OpenRawDisk(_disk(descriptors, name, writable=writable), descriptors)
    except BaseException as error:
        _close(descriptors)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(error, name, "cannot determine the size") from error
        raise


def _disk(descriptors: list[int], name: str, *, writable: bool) -> DescriptorDisk:
    """The disk of the first descriptor, claimed for writing; further descriptors are appended."""
    fd = descriptors[0]
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        if writable:
            claim_file(fd, name)
        return FileDisk(fd, name)
    from pydiskimg.disks.block import BlockDisk  # imported here, because most images are files
    from pydiskimg.linux.blockdev import is_read_only

    direct_fd = None
    if writable:
        if is_read_only(fd):
            raise StorageError(f"{name}: the device is read-only", errno=errno.EROFS, filename=name)
        descriptors += claim_device(fd, name)
        direct_fd = _open_direct(fd)
        descriptors += [] if direct_fd is None else [direct_fd]
    return BlockDisk(fd, name, direct_fd=direct_fd)


def _close(descriptors: list[int]) -> None:
    """Close all, in reverse order, even after an error."""
    while descriptors:
        try:
            os.close(descriptors.pop())
        except OSError:
            _close(descriptors)
            raise


def _open(name: str, *, writable: bool) -> int:
    """Open name after checking its type: opening a FIFO would block, and a character device may act."""
    if not name:
        raise StorageError("the name of the image is empty", errno=errno.ENOENT, filename=name)
    try:
        mode = os.stat(name).st_mode
        if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
            raise StorageError(
                f"{name}: is {_what(mode)}; expected a block device or a regular file",
                errno=errno.EINVAL,
                filename=name,
            )
        flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDWR if writable else os.O_RDONLY)
        if writable and stat.S_ISBLK(mode):
            flags |= os.O_EXCL
        return os.open(name, flags)
    except StorageError:
        raise
    except OSError as error:
        if error.errno == errno.EBUSY:
            from pydiskimg.host.holders import device_holder  # takes longer to import than this module

            raise InUseError(
                f"{name}: is in use ({device_holder(name)}); nothing was written", errno=errno.EBUSY, filename=name
            ) from error
        raise storage_error(error, name, "cannot open for writing" if writable else "cannot open") from error
    except ValueError as error:  # Python's words for it differ from version to version
        text = f"{name!r}: is not a path (it has a null byte)"
        raise StorageError(text, errno=errno.EINVAL, filename=name) from error


def _open_direct(fd: int) -> int | None:
    """Open the device of fd a second time, bypassing the page cache; None if that is not possible."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def _what(mode: int) -> str:
    for test, words in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
    ):
        if test(mode):
            return words
    return "neither a file nor a device"
