# SPDX-License-Identifier: MIT
"""The bytes of a compressed file, inflated ahead of their reader by a thread.

gzip is inflated by isal if it is installed, otherwise by zlib: both check the length and the CRC in each trailer, which
libarchive skips. bzip2 is inflated by Python's own module, since libarchive ends silently at a later stream of a file
that is damaged in its first bytes. libarchive inflates every other compression.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from pydiskimg.errors import ArchiveError, StorageError, storage_error
from pydiskimg.files.tar import layout

READ = 512 << 10
_INFLATED = 2 << 20
_GATHERED = 128 << 10
_AHEAD = 4


class Inflated(NamedTuple):
    """A run of inflated bytes; consumed is the number of bytes of the file read so far."""

    data: bytes
    consumed: int


class ArchiveInput:
    """A file or a pipe that is read from start to end; position counts the bytes read."""

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.position = 0
        self._fd = fd
        self._ahead = b""

    def peek(self, length: int) -> bytes:
        """Return the next bytes, which read() returns again; fewer than length at the end. Raises StorageError."""
        while len(self._ahead) < length and (data := self._read(length - len(self._ahead))):
            self._ahead += data
        return self._ahead[:length]

    def read(self, length: int) -> bytes:
        """Return the next bytes, at most length; none at the end. Raises StorageError."""
        found, self._ahead = self._ahead, b""
        if len(found) < length:
            found += self._read(length - len(found))
        self.position += len(found)
        return found

    def _read(self, length: int) -> bytes:
        try:
            return os.read(self._fd, length)
        except OSError as error:
            raise storage_error(error, self.name, "cannot read the archive") from error


def inflate(fd: int, name: str) -> Generator[Inflated, None, None]:
    """Yield the contents of the file, inflated, in blocks of at most a few MiB; from its start, not from its cursor.

    A file that is not compressed is yielded unchanged. Raises ArchiveError when the compressed data end early or
    contradict their checksum, StorageError when the file cannot be read.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    return inflate_input(ArchiveInput(fd, name))


def inflate_input(file: ArchiveInput) -> Generator[Inflated, None, None]:
    """Do as inflate() does with the rest of a file or pipe."""
    start = file.peek(layout.BLOCK)
    if start.startswith(b"\x1f\x8b"):
        return _gathered(_members(file, _gzip()))
    if start.startswith(b"BZh"):
        return _gathered(_members(file, _bzip2()))
    if len(start) == layout.BLOCK and start[0] and layout.checksum_is_right(start):
        return _uncompressed(file)
    from pydiskimg.files.tar.libarchive import inflate_any  # imported here: most archives do not need it

    return _gathered(inflate_any(file))


def _gathered(blocks: Generator[Inflated, None, None]) -> Generator[Inflated, None, None]:
    """Join small blocks: archives can consist of many tiny members, and each block has a fixed cost."""
    parts: list[bytes] = []
    length = consumed = 0
    with closing(blocks):
        for block in blocks:
            parts.append(block.data)
            length += len(block.data)
            consumed = block.consumed
            if length >= _GATHERED:
                yield Inflated(b"".join(parts), consumed)
                parts, length = [], 0
    if length:
        yield Inflated(b"".join(parts), consumed)


def _uncompressed(file: ArchiveInput) -> Generator[Inflated, None, None]:
    while data := file.read(_INFLATED):
        yield Inflated(data, file.position)


class _Decompressor(Protocol):
    """Inflates a member of a file, like bz2.BZ2Decompressor; input beyond max_length is kept."""

    eof: bool
    unused_data: bytes
    needs_input: bool

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _ZlibDecompressor:
    """A _Decompressor by zlib."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)
        self.eof = False
        self.unused_data = b""
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        inflater = self._inflater
        inflated = inflater.decompress(inflater.unconsumed_tail + data, max_length)
        self.eof, self.unused_data = inflater.eof, inflater.unused_data
        self.needs_input = not inflater.unconsumed_tail
        return inflated


class _Compression(NamedTuple):
    """How the members of a file are inflated; magic is the first byte of each."""

    name: str
    magic: bytes
    decompressor: Callable[[], _Decompressor]
    failure: type[Exception]


def _bzip2() -> _Compression:
    import bz2  # imported here: few archives need it

    new: Callable[[], Any] = bz2.BZ2Decompressor
    return _Compression("bzip2", b"B", new, OSError)


def _gzip() -> _Compression:
    """Return the compression with the best library for it.

    isal's class takes the interpreter's lock once for each block. Its decompressobj takes it each time that it doubles
    its buffer from 16 KiB on, and waits for the thread that has it.
    """
    try:
        from isal import igzip_lib
    except ImportError:
        return _Compression("gzip", b"\x1f", _ZlibDecompressor, zlib.error)
    library: Any = igzip_lib  # the stub declares IsalError as an instance
    new = partial(library.IgzipDecompressor, library.DECOMP_GZIP)
    return _Compression("gzip", b"\x1f", new, library.IsalError)


def _members(file: ArchiveInput, compression: _Compression) -> Generator[Inflated, None, None]:
    pending = b""
    while True:
        pending = _next_member(pending or file.read(READ), file, compression)
        if not pending and not file.peek(1):
            return
        if not pending:
            continue
        try:
            pending = yield from _member(compression, pending, file)
        except StorageError:  # an OSError, as those of bzip2
            raise
        except compression.failure as error:
            raise ArchiveError(
                f"{file.name}: the {compression.name} data before byte {file.position} of the file are corrupt "
                f"({error}); get the file again"
            ) from error


def _member(compression: _Compression, pending: bytes, file: ArchiveInput) -> Generator[Inflated, None, bytes]:
    """Yield the contents of a member that begins with pending; return the bytes read after its end."""
    decompressor = compression.decompressor()
    while True:
        data = decompressor.decompress(pending, _INFLATED)
        if data:
            yield Inflated(data, file.position)
        if decompressor.eof:
            return decompressor.unused_data
        pending = file.read(READ) if decompressor.needs_input else b""
        if not data and not pending and decompressor.needs_input:
            raise ArchiveError(
                f"{file.name}: the {compression.name} data end early, at byte {file.position}; the file is truncated"
            )


def _next_member(pending: bytes, file: ArchiveInput, compression: _Compression) -> bytes:
    """Return pending from the next member on; tapes and some tools pad the file with zeros."""
    rest = pending.lstrip(b"\0")
    if rest and not rest.startswith(compression.magic):
        raise ArchiveError(
            f"{file.name}: {len(rest)} bytes before byte {file.position} of the file are not {compression.name} data; "
            "something was appended to the archive, or it is corrupt"
        )
    return rest


class Ahead:
    """Runs a generator of blocks in a thread, a few blocks ahead of next_block(). Close it, or the thread stays.

    wait is the number of seconds that close() waits for the thread, which may be reading a pipe that stays empty; None:
    until it ends.
    """

    def __init__(self, blocks: Generator[Inflated, None, None], *, wait: float | None = None) -> None:
        self._blocks = blocks
        self._wait = wait
        self._queue: SimpleQueue[Inflated | BaseException | None] = SimpleQueue()
        self._free = threading.Semaphore(_AHEAD)
        self._closing = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="inflate", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last: BaseException | None = None
        try:
            with closing(self._blocks) as blocks:
                for block in blocks:
                    self._free.acquire()
                    if self._closing:
                        break
                    self._queue.put(block)
        except BaseException as error:  # noqa: BLE001 - the consumer must get each error, or waits for ever
            last = error
        self._queue.put(last)

    def next_block(self) -> Inflated | None:
        """Return the next block; None at the end, also in further calls; raises the generator's errors."""
        if self._ended:
            return None
        item = self._queue.get()
        self._free.release()
        if isinstance(item, Inflated):
            return item
        self._ended = True
        if item is not None:
            raise item
        return None

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._closing = True
        self._ended = True
        self._free.release()
        self._thread.join(self._wait)
