# SPDX-License-Identifier: MIT
"""Space for the unwritten parts of an image: reserved, or filled with zeros."""

from __future__ import annotations

import errno

from pydiskimg.errors import StorageError, UnsupportedImageError, storage_error
from pydiskimg.linux.fallocate import allocate
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import MIB

if TYPE_CHECKING:
    from pydiskimg.protocols import Disk

_PREALLOCATIONS = {"raw": ("off", "falloc", "full"), "qcow2": ("off", "metadata", "falloc", "full")}


def check_preallocation(name: str, format: str, preallocation: str) -> None:  # noqa: A002 - the field's word
    """Raise UnsupportedImageError unless the format supports this preallocation; name is for its text."""
    allowed = _PREALLOCATIONS[format]
    if preallocation not in allowed:
        raise UnsupportedImageError(
            f"{name}: preallocation={preallocation} is not possible for {format}; expected {', '.join(allowed)}"
        )


def reserve(fd: int, offset: int, length: int, *, name: str) -> None:
    """Reserve space for [offset, offset + length) of a file, which may grow. Raises StorageError."""
    if length <= 0:
        return
    try:
        allocate(fd, offset, length)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise storage_error(error, name, f"cannot reserve {length} bytes") from error
        raise StorageError(
            f"{name}: the file system cannot reserve space for files; use preallocation=full, or off",
            errno=error.errno,
            filename=name,
        ) from error


def write_zeros(disk: Disk, start: int, end: int) -> None:
    """Write zeros instead of leaving a hole, to [start, end) of disk."""
    zeros = memoryview(bytes(MIB))
    for at in range(start, end, MIB):
        disk.write(at, zeros[: min(MIB, end - at)])
