# SPDX-License-Identifier: MIT
"""Find where a file has data and where it has holes: lseek() with SEEK_DATA and SEEK_HOLE."""

from __future__ import annotations

import errno
import os

from pydiskimg.errors import InvalidImageError, storage_error
from pydiskimg.extents import Extent, Kind
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# The errors of a file system that does not support SEEK_DATA and SEEK_HOLE.
_NO_SEEK_DATA = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS}

# How far to advance when a file system's answers do not.
_STEP = 4096


# DATA that is joined across holes is yielded when it has this many bytes, so that it can be read meanwhile.
_LONG = 16 << 20


def stored_and_holes(fd: int, size: int, *, name: str, unit: int = 1) -> Iterator[Extent]:
    """Yield DATA and HOLE from 0 to size (bytes) of a regular file, in turns.

    Space that is allocated and not written counts as a hole. If the file system does not support the query, all is
    DATA. A unit (bytes, a power of two) of which any byte is stored is DATA as a whole; with units, neighbours may both
    be DATA. Raises InvalidImageError when the file is now shorter than size, StorageError when the call fails; name is
    for their text.
    """
    start = end = 0  # DATA that was seen and not yielded yet
    while end < size:
        data = min(max(_seek(fd, end, os.SEEK_DATA, size, missing=size, name=name), end), size)
        first = data - data % unit if data < size else size
        if first > end:
            if end > start:
                yield Extent(start, end - start, Kind.DATA)
            yield Extent(end, first - end, Kind.HOLE)
            start = end = first
            if first == size:
                return
        hole = _seek(fd, data, os.SEEK_HOLE, size, missing=data + _STEP, name=name)
        hole = max(hole, data + _STEP)
        end = min(hole + -hole % unit, size)
        if unit > 1 and end - start >= _LONG:
            yield Extent(start, end - start, Kind.DATA)
            start = end
    if end > start:
        yield Extent(start, end - start, Kind.DATA)


def _seek(fd: int, position: int, whence: int, size: int, *, missing: int, name: str) -> int:
    """Return the start of data or of a hole at or after position; missing when there is none (ENXIO)."""
    try:
        found = os.lseek(fd, position, whence)
    except OSError as error:
        if error.errno in _NO_SEEK_DATA:
            return position if whence == os.SEEK_DATA else size
        if error.errno != errno.ENXIO:
            raise storage_error(error, name, f"cannot look for data from offset {position} on") from error
        _check_size(fd, size, name)
        return missing
    if found >= size:
        _check_size(fd, size, name)
    return found


def _check_size(fd: int, size: int, name: str) -> None:
    now = os.fstat(fd).st_size
    if now < size:
        raise InvalidImageError(
            f"{name}: the file has {now} bytes now and had {size} when it was opened; it was changed while it was read"
        )
