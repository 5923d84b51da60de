# SPDX-License-Identifier: MIT
"""Data that goes from a file to a device without being copied, or seen, on the way.

    file of the image   | c1 |    | c3 | c2 |        where the source's bytes lie: read_places()
                           \\         X
    pipe                 [ c1 ][ c2 ][ c3 ]           holds references to pages of the page cache
                           |     |     |
    device              | c1 | c2 | c3 |              written directly: write_place()

It spares half of the processor time of a copy: docs/adr/0023.
"""

from __future__ import annotations

from pydiskimg.linux.pipes import Pipe
from pydiskimg.protocols import read_places, write_place
from pydiskimg.sampling import Sampler
from pydiskimg.units import KIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Disk, Place, Source

# Any device takes whole pages, and each place in a pipe holds one, or a part of one.
PAGE_SIZE = 4 * KIB
# A smaller pipe, for a user who has many, makes so many small requests that copying is faster.
MIN_PIPE_SIZE = 256 * KIB


class Splicing:
    """Copies pieces of source to disk by splice(2), from several threads, until the system refuses once.

    close() when no thread is in copy() any more.
    """

    def __init__(self, source: Source, disk: Disk) -> None:
        self._source = source
        self._disk = disk
        self._sampler = Sampler()
        self._refused = False
        self._pipes: list[Pipe] = []

    def copy(self, piece: Extent) -> bool:
        """Copy a piece of data; False when it is not copied, or not wholly: it must be read and written then.

        So it is when the bytes do not all lie in files, or the disk cannot take them so; when a sample of them is
        zero, since zeros may be worth looking for; and after any refusal or failure of the system, as reading or
        writing then either works or finds the words for what is wrong.
        """
        if self._refused:
            return False
        target = write_place(self._disk, piece.start, piece.length)
        places = None if target is None else read_places(self._source, piece.start, piece.length)
        if target is None or places is None or any((at | size) % PAGE_SIZE for _, at, size in places):
            return False
        try:
            return not self._sampler.hold_zeros(places) and self._move(places, *target)
        except OSError as error:
            self._refuse(error)
            return False

    def close(self) -> None:
        """Close the pipes."""
        while self._pipes:
            self._pipes.pop().close()

    def _move(self, places: list[Place], fd: int, offset: int) -> bool:
        """Move the bytes of places to fd at offset; False when a file ends before that."""
        pipe = self._take_pipe()
        try:
            for source_fd, position, length in places:
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
