# SPDX-License-Identifier: MIT
"""splice(2) through a pipe: pages of one file go to another without being copied through the process."""

from __future__ import annotations

import errno
import fcntl
import os

# The limit in /proc/sys/fs/pipe-max-size for unprivileged users, who may have 64 MiB of pipes in all.
WANTED_SIZE = 1 << 20


class Pipe:
    """A pipe that one thread at a time fills and empties; it never blocks.

    size is the number of bytes that it can hold in whole pages, filled the number that it holds now. Raises OSError
    when the pipe cannot be made.
    """

    __slots__ = ("_read_fd", "_write_fd", "filled", "size")

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.filled = 0
        try:
            self.size = fcntl.fcntl(self._write_fd, fcntl.F_SETPIPE_SZ, WANTED_SIZE)
        except OSError:  # the user has too many pipes of that size
            self.size = fcntl.fcntl(self._write_fd, fcntl.F_GETPIPE_SZ)

    def fill(self, fd: int, offset: int, length: int) -> int:
        """Fill the pipe with at most length bytes of the file fd from offset on; return how many, 0 at its end.

        Raises OSError: EINVAL if the file does not support splice, EAGAIN when the pipe is full.
        """
        count = os.splice(fd, self._write_fd, length, offset_src=offset)
        self.filled += count
        return count

    def empty(self, fd: int, offset: int) -> int:
        """Write the contents to fd at offset; return how many bytes were written. Raises OSError; the rest stays."""
        done = 0
        while self.filled:
            count = os.splice(self._read_fd, fd, self.filled, offset_dst=offset + done)
            if not count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.filled -= count
            done += count
        return done

    def close(self) -> None:
        """Close both ends; the contents are lost."""
        os.close(self._read_fd)
        os.close(self._write_fd)
