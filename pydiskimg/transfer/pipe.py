# SPDX-License-Identifier: MIT
"""Descriptors without a position: pipes, sockets, and files written or read in order."""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from pydiskimg.errors import StorageError, storage_error
from pydiskimg.protocols import Buffer, FileRange
from pydiskimg.units import KIB, MIB

# Each filling of a pipe is a switch between two processes; one MiB is the limit without privileges.
_PIPE_SIZE = MIB
_ZEROS = memoryview(bytes(64 * KIB))
_ZEROS_AT_ONCE = 16

_Some = TypeVar("_Some", bytes, int)


class PipeWriter:
    """Writes bytes in order to a descriptor that the caller owns; from one thread.

    name is for messages; position is the number of bytes written so far; can_move is False if move() does nothing.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.position = 0
        self._fd = fd
        self.can_move = _enlarge(fd)

    def write(self, data: Buffer) -> None:
        """Write all of data. Raises StorageError; its errno is EPIPE when the reader has closed its end."""
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                done += self._some([view[done:]])

    def zeros(self, length: int) -> None:
        """Write length zero bytes. Errors as for write()."""
        while length:
            count = min(_ZEROS_AT_ONCE, length // len(_ZEROS))
            length -= self._some([_ZEROS] * count if count else [_ZEROS[:length]])

    def move(self, ranges: Sequence[FileRange]) -> int:
        """Write the bytes of files without copying them (splice(2)), and return how many were written: the first ones.

        The caller must read and write() the rest: if this is not a pipe, or a file does not support splice, has ended
        or has an error, which reading then reports. Changes of a file before the other end has read it are visible in
        the pipe. Raises StorageError as write() does.
        """
        start = self.position
        for fd, offset, length in ranges if self.can_move else ():
            done = 0
            while done < length:
                if not (count := self._moved(fd, offset + done, length - done)):
                    return self.position - start
                done += count
        return self.position - start

    def flush(self) -> None:
        """Make data written to a file durable; does nothing for a pipe."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):
                raise storage_error(error, self.name, "cannot flush written data to stable storage") from error

    def _moved(self, fd: int, offset: int, length: int) -> int:
        """Move some bytes; return 0 if that does not work; nothing more is moved then."""
        while True:
            try:
                count = os.splice(fd, self._fd, length, offset_src=offset)
            except BlockingIOError:
                _wait(self._fd, select.POLLOUT)
            except BrokenPipeError as error:
                raise self._reader_went_away() from error
            except OSError:
                self.can_move = False
                return 0
            else:
                self.position += count
                return count

    def _reader_went_away(self) -> StorageError:
        return StorageError(
            f"{self.name}: the reader has closed its end after {self.position} bytes; the stream is not complete",
            errno=errno.EPIPE,
            filename=self.name,
        )

    def _some(self, parts: list[memoryview]) -> int:
        while True:
            try:
                count = os.writev(self._fd, parts)
            except BlockingIOError:
                _wait(self._fd, select.POLLOUT)
            except BrokenPipeError as error:
                raise self._reader_went_away() from error
            except OSError as error:
                raise storage_error(error, self.name, f"cannot write after {self.position} bytes") from error
            else:
                self.position += count
                return count


class PipeReader:
    """Reads a descriptor, which the caller owns, in order; from one thread.

    name is for messages; position is the bytes that read() and read_into() have given so far.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.position = 0
        self._fd = fd
        self._ahead = b""
        _enlarge(fd)

    def peek(self, length: int) -> bytes:
        """Return the next length bytes, fewer at the end of the stream; the next read returns them again."""
        while (missing := length - len(self._ahead)) > 0 and (more := self._some(partial(os.read, self._fd, missing))):
            self._ahead += more
        return self._ahead[:length]

    def read(self, length: int) -> bytes:
        """Return the next bytes, at most length, as they arrive; none at the end. Raises StorageError."""
        data, self._ahead = self._ahead[:length], self._ahead[length:]
        data = data or self._some(partial(os.read, self._fd, length))
        self.position += len(data)
        return data

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; return its length, or less at the end of the stream. Raises StorageError."""
        done = min(len(self._ahead), len(buffer))
        buffer[:done] = self._ahead[:done]
        self._ahead = self._ahead[done:]
        while done < len(buffer) and (count := self._some(partial(os.readv, self._fd, [buffer[done:]]))):
            done += count
        self.position += done
        return done

    def _some(self, read: Callable[[], _Some]) -> _Some:
        while True:
            try:
                return read()
            except BlockingIOError:
                _wait(self._fd, select.POLLIN)
            except OSError as error:
                raise storage_error(error, self.name, f"cannot read after {self.position} bytes") from error


def _enlarge(fd: int) -> bool:
    """Make a pipe as large as possible; False if it is not a pipe."""
    try:
        size = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:
        return False
    if size < _PIPE_SIZE:
        with suppress(OSError):  # the user has reached the limit
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return True


def _wait(fd: int, event: int) -> None:
    """Wait for a descriptor that another process made non-blocking, as owners of terminals and sockets do."""
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
