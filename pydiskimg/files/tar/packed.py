# SPDX-License-Identifier: MIT
"""A compressed file, or the only file in an archive, read from start to end: a disk image in .xz or .tar.gz.

The size of its contents is unknown until they were read, so the reader limits how much it takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from pydiskimg.errors import ArchiveError, storage_error
from pydiskimg.files.tar.from_pipe import files_in_archive
from pydiskimg.files.tar.inflate import Ahead, Inflated, inflate
from pydiskimg.linux.fileio import open_path

_AT_ONCE = 1 << 20  # bytes


class PackedFile:
    """The contents of a compressed file, decompressed in its own thread; see open_packed(), only_file().

    name is for messages; position counts the bytes returned by read() and read_into() so far; size is the size of the
    compressed file in bytes, consumed the number of bytes read of it. Every method raises ArchiveError if the
    compressed data end early or are corrupt, StorageError if the file cannot be read. To be used from one thread.
    """

    def __init__(self, next_block: Callable[[], Inflated | None], name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.position = 0
        self.consumed = 0
        self._next_block = next_block
        self._ahead = memoryview(b"")

    def peek(self, length: int) -> bytes:
        """Return the next length bytes, fewer at the end of the contents; the next read returns them again."""
        parts = [self._ahead]
        while sum(map(len, parts)) < length and (data := self._next()):
            parts.append(data)
        if len(parts) > 1:
            self._ahead = memoryview(b"".join(parts))
        return bytes(self._ahead[:length])

    def read(self, length: int) -> bytes:
        """Return the next bytes, length at most; none at the end."""
        if not self._ahead:
            self._ahead = self._next()
        data, self._ahead = self._ahead[:length], self._ahead[length:]
        self.position += len(data)
        return bytes(data)

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; return its length, or less at the end."""
        done = 0
        while done < len(buffer):
            if not self._ahead and not (data := self._next()):
                break
            self._ahead = self._ahead or data
            count = min(len(self._ahead), len(buffer) - done)
            buffer[done : done + count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
            done += count
        self.position += done
        return done

    def _next(self) -> memoryview:
        block = self._next_block()
        if block is None:
            return memoryview(b"")
        self.consumed = block.consumed
        return memoryview(block.data)


@contextmanager
def open_packed(path: str | os.PathLike[str], *, name: str | None = None) -> Iterator[PackedFile]:
    """Decompress a file while the context lasts. Raises StorageError when it cannot be opened."""
    shown = name or os.fsdecode(path)
    try:
        fd = open_path(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(error, shown, "cannot open") from error
    try:
        with closing(Ahead(inflate(fd, shown))) as ahead:
            yield PackedFile(ahead.next_block, shown, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def first_file(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the first file of an archive, compressed or not, if only directories come before it.

    Return None for an archive that begins otherwise or cannot be read: its reader reports the problem. Raises
    StorageError when the file cannot be opened.
    """
    with open_packed(path) as packed, closing(files_in_archive(packed)) as files:
        try:
            found = next(files, None)
        except ArchiveError:
            return None
        return None if found is None else found.path


@contextmanager
def only_file(path: str | os.PathLike[str]) -> Iterator[PackedFile]:
    """Read the only file of an archive, compressed or not, while the context lasts.

    Its end is the archive's: reading that raises ArchiveError if another file follows or the archive is not complete.
    """
    with open_packed(path) as packed, closing(files_in_archive(packed)) as files:
        file = next(files, None)
        if file is None:
            raise ArchiveError(f"{packed.name}: the archive does not contain a file; expected a disk image")

        def next_block() -> Inflated | None:
            if data := file.read(_AT_ONCE):
                return Inflated(data, packed.consumed)
            other = next(files, None)
            if other is not None:
                raise ArchiveError(f"{other.name}: is in the archive besides a disk image; expected only that")
            return None

        yield PackedFile(next_block, file.name, packed.size)
