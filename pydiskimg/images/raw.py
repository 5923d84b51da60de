# SPDX-License-Identifier: MIT
"""A raw image, which is the disk itself: a regular file with its holes, or a block device."""

from __future__ import annotations

import errno
import os
import stat

from pydiskimg.errors import StorageError, closed_error, storage_error
from pydiskimg.linux.fileio import pread_into
from pydiskimg.protocols import ImageBytes, check_buffer
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.extents import Extent
    from pydiskimg.protocols import FileRange, WritableBuffer

_OTHER_FILES = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISSOCK, "a socket"),
)


class RawSource(ImageBytes):
    """A Source over a descriptor of a regular file or block device, whose size (bytes) stays what it was.

    The descriptor is closed by close() when it is owned, and left open otherwise.
    """

    name: str
    size: int
    is_block_device: bool
    format = "raw"

    def __init__(self, fd: int, *, name: str, size: int, is_block_device: bool = False, owned: bool = False) -> None:
        self.name = name
        self.size = size
        self.is_block_device = is_block_device
        self._fd = fd
        self._owned = owned

    @property
    def _open_fd(self) -> int:
        """The descriptor. Raises StorageError after close(), when its number may be that of another file."""
        if self._fd < 0:
            raise closed_error(self.name)
        return self._fd

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the file: two names of one file have the same."""
        status = os.fstat(self._open_fd)
        return status.st_dev, status.st_ino

    @property
    def sector_size(self) -> int | None:
        """The logical sectors of a block device (bytes); None for a file, which may have been made for any."""
        if not self.is_block_device:
            return None
        from pydiskimg.linux.blockdev import logical_sector_size  # imported here: most images are files

        return logical_sector_size(self._open_fd)

    def fileno(self) -> int:
        """Return the descriptor, which stays the source's."""
        return self._open_fd

    def extents(self) -> Iterator[Extent]:
        """Yield the extents as Source.extents() does: parts that the file system does not store are HOLE.

        Data that the file system calls data is DATA even when it is zero. A block device is one DATA extent.
        Raises InvalidImageError when the file became shorter.
        """
        return self.coarse_extents(1)

    def coarse_extents(self, unit: int) -> Iterator[Extent]:
        # Imported here: callers that only want the size do not need these.
        from pydiskimg.extents import Extent, Kind
        from pydiskimg.linux.holes import stored_and_holes

        fd = self._open_fd
        if self.is_block_device:
            return iter([Extent(0, self.size, Kind.DATA)] if self.size else [])
        return stored_and_holes(fd, self.size, name=self.name, unit=unit)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill buffer as Source.read_into() does. Raises InvalidImageError when the file became shorter."""
        check_buffer(self, offset, buffer)
        pread_into(self._open_fd, offset, buffer, name=self.name)

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:
        return [(self._open_fd, offset, length)] if 0 <= offset <= offset + length <= self.size else None

    def stored(self) -> int:
        """Return how many bytes the file system has allocated for the file. Raises StorageError."""
        fd = self._open_fd
        try:
            return os.fstat(fd).st_blocks * 512
        except OSError as error:
            raise storage_error(error, self.name, "cannot determine how much of it is stored") from error

    def close(self) -> None:
        """Close the descriptor, if it is owned. May be called repeatedly."""
        fd, self._fd = self._fd, -1
        if self._owned and fd >= 0:
            os.close(fd)


def describe(fd: int, *, name: str) -> RawSource:
    """Return the Source over an open descriptor, which stays the caller's.

    Raises StorageError when it is neither a regular file nor a block device, or when the system refuses.
    """
    try:
        mode, size = (status := os.fstat(fd)).st_mode, status.st_size
        is_block_device = stat.S_ISBLK(mode)
        if is_block_device:
            from pydiskimg.linux.blockdev import device_size

            size = device_size(fd)
    except OSError as error:
        raise storage_error(error, name, "cannot determine its size") from error
    _check_kind(mode, name)
    return RawSource(fd, name=name, size=size, is_block_device=is_block_device)


def open_image_file(path: str | os.PathLike[str], *, name: str | None = None) -> ImageBytes:
    """Open a file as open_raw() does, or a file at an http:// or https:// address, whose ranges are fetched on demand.

    Raises what open_raw() does, and for an address FetchError: NoRangesError where the server has only the whole file.
    """
    if isinstance(path, str) and "://" in path:
        from pydiskimg.text import is_address

        if is_address(path):
            from pydiskimg.images.address import open_address  # takes ten times as long as all other imports of info

            return open_address(path)
    return open_raw(path, name=name)


def open_raw(path: str | os.PathLike[str], *, name: str | None = None) -> RawSource:
    """Open a regular file or block device for reading; close() of the result closes it.

    name replaces path in messages. Raises StorageError if the file does not exist, may not be read, or is of another
    type.
    """
    if not os.fspath(path):
        raise StorageError("the name of the image is empty", errno=errno.ENOENT, filename="")
    name = name or os.fsdecode(path)
    try:
        # Checked before it is opened: opening a pipe waits, and opening some devices has effects.
        _check_kind(os.stat(path).st_mode, name)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except StorageError:
        raise
    except ValueError as error:
        text = f"{name}: cannot open the image: a path cannot have a NUL byte in it"
        raise StorageError(text, errno=errno.EINVAL, filename=name) from error
    except OSError as error:
        raise storage_error(error, name, "cannot open the image") from error
    try:
        source = describe(fd, name=name)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return RawSource(fd, name=name, size=source.size, is_block_device=source.is_block_device, owned=True)


def _check_kind(mode: int, name: str) -> None:
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return
    kind = next((text for test, text in _OTHER_FILES if test(mode)), "neither a file nor a device")
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise StorageError(f"{name}: is {kind}; an image is a regular file or a block device", errno=number, filename=name)
