# SPDX-License-Identifier: MIT
"""The regular files of a tar archive from a pipe, each read as it arrives."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from pydiskimg.errors import ArchiveError
from pydiskimg.files.tar import layout
from pydiskimg.files.tar.inflate import Inflated
from pydiskimg.files.tar.reader import Reader
from pydiskimg.text import printable

_AT_ONCE = 1 << 20


def looks_like_archive(beginning: bytes) -> bool:
    """True for the first bytes (512 or more) of an uncompressed tar archive."""
    block = beginning[: layout.BLOCK]
    return len(block) == layout.BLOCK and bool(block[0]) and layout.checksum_is_right(block)


class Forward(Protocol):
    """The source of an archive, read from start to end: a pipe, or a file that is decompressed."""

    @property
    def name(self) -> str: ...

    @property
    def position(self) -> int:
        """Bytes read so far."""

    def read(self, length: int) -> bytes:
        """Return the next bytes, length at most; none at the end."""


class FileInArchive:
    """A regular file of the archive: path is its name as text, name that for messages, size is in bytes.

    It is read once, from start to end.
    """

    def __init__(self, name: str, path: str, size: int, data: Iterator[tuple[int, memoryview]]) -> None:
        self.name = f"{name}: {printable(os.fsencode(path))}"
        self.path = path
        self.size = size
        self._data = data
        self._position = 0
        self._block = b""
        self._at = 0
        self._zeros = 0  # of a hole, before the block

    def read(self, length: int) -> bytes:
        """Return the next bytes, length at most; none at the end. Raises ArchiveError for a damaged archive."""
        while not self._zeros and self._at == len(self._block):
            if not self._next():
                return b""
        if self._zeros:
            count = min(self._zeros, length)
            self._zeros -= count
            return bytes(count)
        start, self._at = self._at, min(self._at + length, len(self._block))
        return self._block[start : self._at]  # the block itself if that is all of it

    def blocks(self) -> Iterator[tuple[int, memoryview]]:
        """Yield (offset, bytes) of all but holes, instead of read(); the bytes are valid until the next ones.

        Raises ArchiveError for a damaged archive.
        """
        return self._data

    def _next(self) -> bool:
        for offset, view in self._data:
            self._zeros = offset - self._position
            self._block, self._at = bytes(view), 0
            self._position = offset + len(self._block)
            return True
        self._zeros, self._position = self.size - self._position, self.size
        return self._zeros > 0


def files_in_archive(
    pipe: Forward, *, progress: Callable[[int], None] | None = None
) -> Generator[FileInArchive, None, None]:
    """Yield each regular file of an uncompressed archive, in its order; directories are skipped.

    The unread part of a file is skipped when the caller requests the next one. progress gets the bytes of the archive
    that were read. The caller closes the generator, or reads it to the end: then the archive was complete. Raises
    ArchiveError for an archive that is cut off or corrupt, or has other entries than files and directories;
    StorageError when the pipe cannot be read.
    """
    for entry in Reader(_Blocks(pipe), pipe.name, progress or _nothing).entries():
        path = os.fsdecode(entry.path)
        if entry.kind == stat.S_IFREG:
            yield FileInArchive(pipe.name, path, entry.size, iter(entry.contents))
        elif not entry.is_directory:
            shown = printable(entry.path)
            raise ArchiveError(f"{pipe.name}: {shown} is neither a file nor a directory", entry=shown)


class _Blocks:
    def __init__(self, pipe: Forward) -> None:
        self._pipe = pipe

    def next_block(self) -> Inflated | None:
        data = self._pipe.read(_AT_ONCE)
        return Inflated(data, self._pipe.position) if data else None


def _nothing(_: int) -> None:
    pass
