# SPDX-License-Identifier: MIT
"""splice(2) through a pipe: pages of one file are written to another, and no byte is copied on the way."""

from __future__ import annotations

import errno
import fcntl
import os

# What /proc/sys/fs/pipe-max-size allows everybody, until a user has 64 MiB of them.
WANTED_SIZE = 1 << 20


class Pipe:
    """A pipe that one thread at a time puts bytes into and takes them out of; it never blocks.

    size is how many bytes it holds when they come in whole pages, filled how many it holds now. Raises OSError when
    the system gives no pipe.
    """

    __slots__ = ("_read_fd", "_write_fd", "filled", "size")

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.filled = 0
        try:
            self.size = fcntl.fcntl(self._write_fd, fcntl.F_SETPIPE_SZ, WANTED_SIZE)
        except OSError:  # the user has too many of that size
            self.size = fcntl.fcntl(self._write_fd, fcntl.F_GETPIPE_SZ)

    def fill(self, fd: int, offset: int, length: int) -> int:
        """Put at most length bytes of the file fd in, from offset on; returns how many, 0 where the file ends.

        Raises OSError: EINVAL where the file cannot do that, EAGAIN when the pipe is full.
        """
        count = os.splice(fd, self._write_fd, length, offset_src=offset)
        self.filled += count
        return count

    def empty(self, fd: int, offset: int) -> int:
        """Write everything to fd at offset; returns how many bytes that were. Raises OSError: the rest stays inside."""
        done = 0
        while self.filled:
            count = os.splice(self._read_fd, fd, self.filled, offset_dst=offset + done)
            if not count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.filled -= count
            done += count
        return done

    def close(self) -> None:
        """Close both ends; what is inside is lost."""
        os.close(self._read_fd)
        os.close(self._write_fd)
