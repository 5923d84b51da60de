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


def stored_and_holes(fd: int, size: int, *, name: str) -> Iterator[Extent]:
    """Yield DATA and HOLE from 0 to size (bytes) of a regular file; two neighbours may be of the same kind.

    Space that is allocated and not written counts as a hole. If the file system does not support the query, all is
    DATA. Raises InvalidImageError when the file is now shorter than size, StorageError when the call fails; name is for
    their text.
    """
    position = 0
    while position < size:
        data = min(_seek(fd, position, os.SEEK_DATA, size, missing=size, name=name), size)
        if data > position:
            yield Extent(position, data - position, Kind.HOLE)
            position = data
            continue
        hole = min(_seek(fd, position, os.SEEK_HOLE, size, missing=position + _STEP, name=name), size)
        hole = max(hole, min(position + _STEP, size))
        yield Extent(position, hole - position, Kind.DATA)
        position = hole


def _seek(fd: int, position: int, whence: int, size: int, *, missing: int, name: str) -> int:
    """Return the start of data or of a hole at or after position; missing when there is none (ENXIO)."""
    try:
        found = os.lseek(fd, position, whence)
    except OSError as error:
        if error.errno in _NO_SEEK_DATA:
            return position if whence == os.SEEK_DATA else size
        if error.errno != errno.ENXIO:
            raise storage_error(error, name, f"cannot look for data from offset {position} on") from error
        found = missing
    if found >= size or found == missing:
        _check_size(fd, size, name)
    return found


def _check_size(fd: int, size: int, name: str) -> None:
    now = os.fstat(fd).st_size
    if now < size:
        raise InvalidImageError(
            f"{name}: the file has {now} bytes now and had {size} when it was opened; it was changed while it was read"
        )
