# SPDX-License-Identifier: MIT
"""Whole reads and writes at an offset: short transfers continue, errors give the offset; files of /proc and /sys."""

from __future__ import annotations

import errno
import os

from pydiskimg.errors import InvalidImageError, storage_error
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.protocols import Buffer, WritableBuffer


def open_path(path: str | bytes | os.PathLike[str], flags: int) -> int:
    """Open as os.open() does; a path with a NUL byte in it is an OSError, too."""
    try:
        return os.open(path, flags)
    except ValueError as error:
        raise OSError("a path cannot have a NUL byte in it") from error


def grow_file(fd: int, size: int, *, name: str) -> None:
    """Extend a regular file to size bytes; the new part reads as zero. Raises StorageError, with name in its text."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise storage_error(error, name, f"cannot grow to {size} bytes") from error


def pread_into(fd: int, offset: int, buffer: WritableBuffer, *, name: str) -> None:
    """Fill buffer with the bytes from offset on, independent of the file's cursor.

    Raises InvalidImageError when the file ends too early, StorageError when the read fails; name is for their text.
    """
    view = memoryview(buffer)
    done = 0
    while done < len(view):
        try:
            count = os.preadv(fd, [view[done:]], offset + done)
        except OSError as error:
            raise storage_error(
                error, name, f"cannot read {len(view) - done} bytes at offset {offset + done}"
            ) from error
        if not count:
            raise InvalidImageError(
                f"{name}: the file ends at byte {offset + done}, where {len(view) - done} more bytes were expected; "
                "it is truncated or was changed while it was read"
            )
        done += count


def pwrite_all(fd: int, offset: int, data: Buffer, *, name: str) -> None:
    """Write all of data at offset. Raises StorageError; name is for its text."""
    view = memoryview(data)
    done = 0
    while done < len(view):
        try:
            count = os.pwrite(fd, view[done:], offset + done)
            if not count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            doing = f"cannot write {len(view) - done} bytes at offset {offset + done}"
            raise storage_error(error, name, doing) from error
        done += count


def system_text(path: str) -> str:
    """Return the text of a file of /proc or /sys, with surrogate escapes for what is not UTF-8. Raises OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def system_names(directory: str) -> list[str]:
    """Return the names in a directory of /proc or /sys, sorted; none if it does not exist."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def device_directory(number: int) -> str:
    """Return the directory of /sys, a symlink, that describes the block device of this number."""
    return f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"


def device_number(directory: str) -> int:
    """Return the number of the device with this directory in /sys. Raises OSError if it has gone."""
    major, minor = system_text(f"{directory}/dev").split(":")
    return os.makedev(int(major), int(minor))
