# SPDX-License-Identifier: MIT
"""The tape blocks of a dump; compressed ones are decompressed by threads.

A tape block is c_ntrec records. In a compressed dump the first one is stored uncompressed; each other one follows a
prefix with its stored length, even if it is uncompressed because it did not become smaller.
"""

from __future__ import annotations

import struct
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.files.dump.layout import COMPRESS_BZLIB, COMPRESS_LZO, COMPRESS_ZLIB, PREFIX_SIZE, TP_BSIZE, prefix
from pydiskimg.files.dump.tape import Input
from pydiskimg.transfer.ordered import ordered
from pydiskimg.transfer.workers import MAX_WORKERS, worker_count

# Bytes that are read or decompressed at once: enough to write files in few pieces and to use threads seldom, and Python
# releases its lock while it joins blocks of 1 MiB or more.
_CHUNK = 4 << 20
_READ = 2 << 20
# Deflate makes at most this many bytes of one; blocks that could exceed the limit are decompressed step by step.
_MOST_DEFLATED = 1032
_LONGEST_AT_ONCE = 16 << 20
# Threads beyond the number of CPUs: they get further ahead while the writer waits for the disk.
_MORE_WORKERS = 1


def plain_chunks(stored: Input, first: bytes) -> Generator[bytes, None, None]:
    """Yield the records of an uncompressed dump in chunks; first is the part that was already read.

    Raises InvalidImageError when it ends within a record.
    """
    pending = first
    while data := stored.up_to(_CHUNK - len(pending)):
        data = pending + data
        whole = len(data) // TP_BSIZE * TP_BSIZE
        pending = data[whole:]
        if whole:
            yield data[:whole] if pending else data
    if len(pending) == TP_BSIZE:
        yield pending
    elif pending:
        raise InvalidImageError(
            f"{stored.name}: the dump ends within a record, at byte {stored.consumed}; it is truncated"
        )


class _Block(NamedTuple):
    """A stored block: its position in its group's bytes, whether and how it is compressed, and its offset (bytes)."""

    start: int
    end: int
    compressed: bool
    method: int
    offset: int


class _Group(NamedTuple):
    data: bytes
    blocks: list[_Block]


def compressed_chunks(
    stored: Input, first: bytes, *, block_size: int, order: str, workers: int | None = None
) -> Generator[bytes, None, None]:
    """Yield the records of a compressed dump in chunks of some blocks; first is the first tape block, already read.

    block_size is the size of a decompressed tape block in bytes. The caller's thread reads blocks, and workers
    (threads) decompress them. Raises InvalidImageError, with the byte offset, for a block that is cut off or corrupt,
    and UnsupportedImageError for an unsupported compression.
    """
    yield first
    inflate = _Inflater(stored.name, block_size)
    count = workers or min(MAX_WORKERS, worker_count(None) + _MORE_WORKERS)
    groups = _groups(stored, block_size, order)
    with closing(ordered(groups, inflate.group, workers=count)) as chunks:
        yield from chunks


def _groups(stored: Input, block_size: int, order: str) -> Iterator[_Group]:
    """Divide the stream into groups, each no longer than a chunk when decompressed, or a single block."""
    at_once = max(1, _CHUNK // block_size)
    word = struct.Struct(order + "I")
    data = b""
    offset = stored.consumed
    while True:
        more = stored.up_to(max(_READ, block_size), enough=_READ // 2)
        data += more
        position = 0
        blocks: list[_Block] = []
        while len(data) - position >= PREFIX_SIZE:
            compressed, method, length = found = prefix(word.unpack_from(data, position)[0], order)
            start = position + PREFIX_SIZE
            _check_prefix(stored.name, offset + position, found, block_size)
            if start + length > len(data):
                break
            position = start + length
            blocks.append(_Block(start, position, compressed, method, offset + start))
            if len(blocks) == at_once:
                yield _Group(data, blocks)
                blocks = []
        if blocks:
            yield _Group(data, blocks)
        data = data[position:]
        offset += position
        if not more:
            break
    if data:
        raise InvalidImageError(f"{stored.name}: the dump ends within the tape block at byte {offset}; it is truncated")


def _check_prefix(name: str, offset: int, found: tuple[bool, int, int], block_size: int) -> None:
    compressed, method, length = found
    if not 0 < length <= block_size or (not compressed and length != block_size):
        raise InvalidImageError(
            f"{name}: the tape block at byte {offset} states {length} bytes, but blocks have {block_size}; "
            "the dump is damaged"
        )
    if compressed and method == COMPRESS_LZO:
        raise UnsupportedImageError(
            f"{name}: is compressed with LZO, which is not read here; make the dump with -z, or recompress it"
        )
    if compressed and method not in (COMPRESS_ZLIB, COMPRESS_BZLIB):
        raise InvalidImageError(
            f"{name}: the tape block at byte {offset} has the unknown compression {method}; the dump is damaged"
        )


class _Inflater:
    """Decompresses groups, on any number of threads."""

    def __init__(self, name: str, block_size: int) -> None:
        self._name = name
        self._size = block_size
        self._library, self._corrupt = _decompressor()

    def group(self, group: _Group) -> bytes:
        view = memoryview(group.data)
        return b"".join([self._block(view[block.start : block.end], block) for block in group.blocks])

    def _block(self, stored: memoryview, block: _Block) -> bytes | memoryview:
        if not block.compressed:
            return stored
        try:
            if block.method == COMPRESS_ZLIB and len(stored) * _MOST_DEFLATED <= _LONGEST_AT_ONCE:
                data: bytes = self._library.decompress(stored, zlib.MAX_WBITS, self._size)
                is_whole = True
            else:
                decompressor = self._library.decompressobj() if block.method == COMPRESS_ZLIB else BZ2Decompressor()
                # One byte more than expected: only then does the decompressor check the checksum after the last byte.
                data = decompressor.decompress(stored, self._size + 1)
                is_whole = decompressor.eof
        except self._corrupt as error:
            raise self._error(block, str(error)) from error
        if len(data) != self._size or not is_whole:
            raise self._error(block, f"it gives {len(data)} of {self._size} bytes")
        return data

    def _error(self, block: _Block, reason: str) -> InvalidImageError:
        return InvalidImageError(
            f"{self._name}: the tape block at byte {block.offset} cannot be decompressed: {reason.rstrip('.')}; "
            "the dump is damaged"
        )


def _decompressor() -> tuple[Any, tuple[type[BaseException], ...]]:
    """Return the module for decompression (isal if it is installed), and its exceptions."""
    library: Any = zlib
    try:
        from isal import isal_zlib
    except ImportError:
        pass
    else:
        library = isal_zlib
    return library, (zlib.error, library.error, OSError, EOFError)  # the last two are bz2's
