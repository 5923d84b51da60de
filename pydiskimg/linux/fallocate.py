# SPDX-License-Identifier: MIT
"""fallocate(2): make holes and zeros without writing them. For files and, since Linux 4.9, block devices."""

from __future__ import annotations

# linux/falloc.h
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_ZERO_RANGE = 0x10


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Free [offset, offset + length) (bytes); it reads as zero afterwards. On a block device: unmap, zeros guaranteed.

    Raises OSError: EOPNOTSUPP if the file system or device cannot do it.
    """
    _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)


def zero_range(fd: int, offset: int, length: int) -> None:
    """Make [offset, offset + length) (bytes) read as zero and stay allocated; errors as for punch_hole()."""
    _fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length)


def allocate(fd: int, offset: int, length: int) -> None:
    """Reserve space for [offset, offset + length) (bytes) of a file, which may grow; existing data stays.

    Raises OSError: ENOSPC if there is not enough space, EOPNOTSUPP if the file system cannot do it.
    """
    _fallocate(fd, 0, offset, length)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    import ctypes  # imported here, because most commands write nothing and must start quickly

    from pydiskimg.linux.libc import call

    call("fallocate64", ctypes.c_int(fd), ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length))
