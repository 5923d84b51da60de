# SPDX-License-Identifier: MIT
"""open_disk(): a block device or a regular file, opened so that nobody else writes it meanwhile."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from contextlib import ExitStack
from types import TracebackType

from pydiskimg.errors import InUseError, StorageError, storage_error
from pydiskimg.holders import device_holder, loop_over_file
from pydiskimg.linux.blockdev import is_read_only
from pydiskimg.targets.block import BlockDisk
from pydiskimg.targets.descriptor import DescriptorDisk
from pydiskimg.targets.file import FileDisk

log = logging.getLogger(__name__)


class OpenDisk:
    """Owns a Disk's descriptor: a context manager that gives the Disk and closes its descriptor.

        with open_disk("/dev/drbd3", writable=True) as disk:
            disk.write(0, data)

    close() may be called again; leaving the block does not flush: call Disk.flush() before success is reported.
    """

    def __init__(self, disk: DescriptorDisk, stack: ExitStack) -> None:
        self.disk = disk
        self._stack = stack

    def close(self) -> None:
        """Close the descriptor; raises StorageError when the system reports a late write error."""
        try:
            self._stack.close()
        except OSError as error:
            raise storage_error(error, self.disk.name, "cannot close") from error

    def __enter__(self) -> DescriptorDisk:
        return self.disk

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StorageError as late:
            if error is None:
                raise
            log.warning("%s (after another error, which is the one reported)", late)


def open_disk(path: str | os.PathLike[str], *, writable: bool = False) -> OpenDisk:
    """Open a block device or an existing regular file as a Disk.

    For writing, a block device is opened O_EXCL, so that a mounted or otherwise claimed device is refused; a
    file is locked (flock) and refused while it is attached to a loop device. Files are never made, truncated or
    grown. Raises InUseError when somebody holds it, StorageError for what does not exist, may not be opened, or
    is neither a device nor a file.
    """
    name = os.fspath(path)
    with ExitStack() as stack:
        fd = _open(name, writable=writable)
        stack.callback(os.close, fd)
        is_block = stat.S_ISBLK(os.fstat(fd).st_mode)
        disk: DescriptorDisk
        try:
            if writable and not is_block:
                _lock_file(fd, name)
            if is_block and writable and is_read_only(fd):
                raise StorageError(f"{name}: the device is read-only", errno=errno.EROFS, filename=name)
            if is_block:
                disk = BlockDisk(fd, name, direct_fd=_open_direct(stack, fd) if writable else None)
            else:
                disk = FileDisk(fd, name)
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(error, name, "cannot find out the size") from error
        return OpenDisk(disk, stack.pop_all())


def _open(name: str, *, writable: bool) -> int:
    """Open name after looking at what it is: opening a FIFO would block, and a character device may act."""
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
            raise InUseError(
                f"{name}: is in use ({device_holder(name)}); nothing was written", errno=errno.EBUSY, filename=name
            ) from error
        raise storage_error(error, name, "cannot open for writing" if writable else "cannot open") from error
    except ValueError as error:  # a NUL byte
        raise StorageError(f"{name!r}: is not a path ({error})", errno=errno.EINVAL, filename=name) from error


def _open_direct(stack: ExitStack, fd: int) -> int | None:
    """Open the device behind fd once more, past the page cache; None where that is not to be had."""
    try:
        direct_fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None
    stack.callback(os.close, direct_fd)
    return direct_fd


def _lock_file(fd: int, name: str) -> None:
    loop = loop_over_file(fd)
    if loop is not None:
        raise InUseError(
            f"{name}: is in use (attached to {loop}); nothing was written", errno=errno.EBUSY, filename=name
        )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InUseError(
            f"{name}: is in use (another process has locked it); nothing was written", errno=errno.EBUSY, filename=name
        ) from error
    except OSError as error:
        raise storage_error(error, name, "cannot lock") from error


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
