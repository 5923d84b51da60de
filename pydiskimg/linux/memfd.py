# SPDX-License-Identifier: MIT
"""Anonymous sparse files in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sparse_memfd(name: str, size: int) -> Iterator[int]:
    """Give the descriptor of an empty anonymous file of size bytes; only written parts take memory."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def data_ranges(fd: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) in bytes of the written parts of a sparse file."""
    end = 0
    while True:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end
