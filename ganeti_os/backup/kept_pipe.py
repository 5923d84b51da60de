# SPDX-License-Identifier: MIT
"""A pipe whose beginning is kept in a file, so that it can be examined before it is read in order."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ganeti_os.install.nameless_file import end_at
from pydiskimg.errors import StorageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.linux.fileio import pread_into, pwrite_all
from pydiskimg.protocols import ImageBytes, WritableBuffer, check_buffer
from pydiskimg.transfer.pipe import PipeReader
from pydiskimg.units import GIB, MIB

log = logging.getLogger(__name__)

# Enough for an EFI system partition and a /boot; the node's directory has other files, too.
MOST_KEPT = 4 * GIB
_AT_ONCE = MIB
_ZEROS = bytes(_AT_ONCE)


class NotYetError(Exception):
    """The requested bytes have not arrived yet; end is their end in the pipe."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.end = end


class KeptPipe:
    """An Incoming over an unread pipe. Bytes that keep() took from the pipe are read first.

    fd is of an empty file in directory; file and pipe stay the caller's; zeros are holes in the file. came is the
    number of the pipe's bytes in it, limited to about most, is_whole tells whether these are all.
    """

    name: str

    def __init__(self, pipe: PipeReader, fd: int, directory: str, *, most: int = MOST_KEPT) -> None:
        self.name = pipe.name
        self.position = 0
        self.came = 0
        self.is_whole = False
        self._pipe = pipe
        self._fd = fd
        self._directory = directory
        self._most = most

    def keep(self, end: int) -> bool:
        """Take bytes up to end from the pipe; False if the pipe ends before, or the file can hold no more of them."""
        while self.came < end and self.came < self._most and not self.is_whole:
            data = self._pipe.peek(_AT_ONCE)
            try:
                self._append(data)
            except StorageError as error:  # the directory is full; the pipe still has these bytes
                log.debug("%s", error)
                self._most = 0
                break
            self.is_whole = len(data) < _AT_ONCE
            self.came += len(self._pipe.read(len(data)))
        return self.came >= end

    def _append(self, data: bytes) -> None:
        if data == _ZEROS[: len(data)]:
            end_at(self._fd, self.came + len(data), self._directory)
        else:
            pwrite_all(self._fd, self.came, data, name=self._directory)

    def image_file(self, size: int) -> ImageBytes:
        """Return an image file of the kept beginning; size is its size if more bytes follow."""
        return _BeginningOfFile(self, self._fd, self.came if self.is_whole else size)

    def peek(self, length: int) -> bytes:
        """Return the next length bytes, fewer at their end; the next read returns them again."""
        kept = self._kept(length)
        return kept + self._pipe.peek(length - len(kept)) if len(kept) < length else kept

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; return less only at the end of the pipe. Raises StorageError."""
        kept = self._kept(len(buffer))
        buffer[: len(kept)] = kept
        count = len(kept) + self._pipe.read_into(buffer[len(kept) :])
        self.position += count
        if self.came and self.position >= self.came:
            self.came = 0
            end_at(self._fd, 0, self._directory)  # its space is free while the rest arrives
        return count

    def _kept(self, length: int) -> bytes:
        """Return the next bytes of the file, at most length."""
        data = bytearray(max(0, min(length, self.came - self.position)))
        pread_into(self._fd, self.position, data, name=self.name)
        return bytes(data)


class _BeginningOfFile(ImageBytes):
    """An image file that is still arriving: NotYetError for bytes that have not arrived."""

    name: str
    size: int
    is_block_device = False
    identity = (0, 0)  # files that it refers to are not opened

    def __init__(self, pipe: KeptPipe, fd: int, size: int) -> None:
        self.name = pipe.name
        self.size = size
        self._came = pipe.came
        self._fd = fd

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        if offset + len(buffer) > self._came:
            raise NotYetError(offset + len(buffer))
        pread_into(self._fd, offset, buffer, name=self.name)

    def stored(self) -> None:
        return None

    def close(self) -> None:
        """Do nothing: the caller closes the file."""
