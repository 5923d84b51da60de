# SPDX-License-Identifier: MIT
"""Move data from a file to a device without copying or reading them.

    file of the image   | c1 |    | c3 | c2 |        where the source's bytes are: file_ranges()
                           \\         X
    pipe                 [ c1 ][ c2 ][ c3 ]           holds references to pages of the page cache
                           |     |     |
    device              | c1 | c2 | c3 |              written directly: file_location()

It saves half of the processor time of a copy: docs/adr/0023.
"""

from __future__ import annotations

import errno
import os

from pydiskimg.linux.pipes import Pipe
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import KIB

if TYPE_CHECKING:
    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Disk, FileRange, Source


# Every device accepts whole pages, and each slot of a pipe holds a page, or a part of one.
PAGE_SIZE = 4 * KIB
# A smaller pipe, for a user who has many, leads to so many small requests that copying is faster.
MIN_PIPE_SIZE = 256 * KIB


class Splicing:
    """Copies pieces of source to disk by splice(2), from several threads, until a system call fails once.

    close() when no thread is in copy() any more.
    """

    def __init__(self, source: Source, disk: Disk) -> None:
        self._source = source
        self._disk = disk
        self._sampler = Sampler()
        self._refused = False
        self._pipes: list[Pipe] = []

    def copy(self, piece: Extent) -> bool:
        """Copy a piece of data; False if it is not copied, or not completely: it must be read and written then.

        That is so if some bytes are not in files, or the disk does not support it; if a sample of them is zero, because
        zeros may be worth searching for; and after any error of the system, because reading or writing then either
        works or reports the cause.
        """
        if self._refused:
            return False
        target = self._disk.file_location(piece.start, piece.length)
        ranges = None if target is None else self._source.file_ranges(piece.start, piece.length)
        if target is None or ranges is None or any((at | size) % PAGE_SIZE for _, at, size in ranges):
            return False
        try:
            return not self._sampler.hold_zeros(ranges) and self._move(ranges, *target)
        except OSError as error:
            self._refuse(error)
            return False

    def close(self) -> None:
        """Close the pipes."""
        while self._pipes:
            self._pipes.pop().close()

    def _move(self, ranges: list[FileRange], fd: int, offset: int) -> bool:
        """Move the bytes of ranges to fd at offset; False if a file ends before that."""
        pipe = self._take_pipe()
        try:
            for source_fd, position, length in ranges:
                done = 0
                while done < length:
                    count = pipe.fill(source_fd, position + done, min(length - done, pipe.size - pipe.filled))
                    if not count:
                        return False
                    done += count
                    if pipe.filled == pipe.size:
                        offset += pipe.empty(fd, offset)
            pipe.empty(fd, offset)
            return True
        finally:
            if pipe.filled:
                pipe.close()
            else:
                self._pipes.append(pipe)

    def _take_pipe(self) -> Pipe:
        try:
            return self._pipes.pop()
        except IndexError:
            pipe = Pipe()
        if pipe.size < MIN_PIPE_SIZE:
            pipe.close()
            raise OSError(f"a pipe holds only {pipe.size} bytes")
        return pipe

    def _refuse(self, error: OSError) -> None:
        if not self._refused:
            self._refused = True
            from logging import getLogger  # takes longer to import than a small disk to write, and is rarely needed

            getLogger(__name__).info("data is read and written, as splicing it does not work here: %s", error)


# One sample for each stretch, counted from the first byte: zeros in whole units of RUN_SIZE that are at least as long
# in total contain a sample followed by a whole unit, wherever they are.
SAMPLE_STEP = 256 * KIB
SAMPLE_SIZE = 512
# After a sample that is zero, the same amount is examined, because files are full of short runs of zeros.
RUN_SIZE = 64 * KIB

_ZEROS = bytes(RUN_SIZE)
_CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Sampler:
    """Examines data in samples; safe from several threads."""

    def __init__(self) -> None:
        self._flags = os.RWF_NOWAIT

    def hold_zeros(self, ranges: list[FileRange]) -> bool:
        """True if a sample of the ranges is the beginning of zeros.

        Raises OSError, also if a sample is not in the page cache: reads are larger than a pipe, and load a file faster.
        A file system that cannot tell is asked to load everything.
        """
        start = 0
        for fd, position, length in ranges:
            if not self._flags:
                os.posix_fadvise(fd, position, length, os.POSIX_FADV_WILLNEED)
            for at in range(-start % SAMPLE_STEP, length, SAMPLE_STEP):
                sample = self._sample(fd, position + at, min(SAMPLE_SIZE, length - at))
                if _is_zero(sample) and _is_zero(os.pread(fd, min(RUN_SIZE, length - at), position + at)):
                    return True
            start += length
        return False

    def _sample(self, fd: int, position: int, size: int) -> bytearray:
        sample, flags = bytearray(size), self._flags
        try:
            os.preadv(fd, [sample], position, flags)
        except BlockingIOError as error:
            raise OSError(errno.EAGAIN, "the image is not in the page cache") from error
        except OSError as error:
            if not flags or error.errno not in _CANNOT:
                raise
            self._flags = 0  # tmpfs, where it makes no difference, and network file systems
            return self._sample(fd, position, size)
        return sample


def _is_zero(data: bytes | bytearray) -> bool:
    return data == _ZEROS[: len(data)]
