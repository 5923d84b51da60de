# SPDX-License-Identifier: MIT
"""The inflated bytes of an archive, read from start to end in pieces of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from pydiskimg.files.tar.inflate import Inflated


class Blocks(Protocol):
    """The source of an archive's bytes."""

    def next_block(self) -> Inflated | None:
        """Return the next block; None at the end, also in further calls."""


class ArchiveBytes:
    """Bytes of an archive; position counts those that were taken.

    consumed is called with the number of bytes of the file that were read so far. Methods raise as the blocks do, and
    ValueError with a clause that says where the archive ends too early.
    """

    def __init__(self, blocks: Blocks, consumed: Callable[[int], None]) -> None:
        self._blocks = blocks
        self._consumed = consumed
        self._data = b""
        self._view = memoryview(b"")
        self._start = 0  # the block's offset in the archive
        self._at = 0

    @property
    def position(self) -> int:
        return self._start + self._at

    def take(self, length: int) -> bytes:
        """Return the next bytes, exactly length."""
        start, self._at = self._at, self._at + length
        if self._at <= len(self._data):  # most of them
            return self._data[start : self._at]
        self._at = start
        return b"".join(piece for _, piece in self.pieces(0, length))

    def peek(self, length: int) -> bytes:
        """Return the next bytes without taking them: length, or fewer at the end."""
        while len(self._data) - self._at < length:
            block = self._blocks.next_block()
            if block is None:
                break
            self._use(self._data[self._at :] + block.data, self.position, block.consumed)
        return self._data[self._at : self._at + length]

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, memoryview]]:
        """Yield the next length bytes as (offset in their file, piece); offset is that of the first one."""
        while length:
            if self._at == len(self._data):
                self._next()
            piece = self._view[self._at : self._at + length]
            count = len(piece)
            self._at += count
            yield offset, piece
            offset += count
            length -= count

    def piece(self, length: int) -> memoryview | None:
        """Return the next length bytes as one piece and take them; None if they are not all in memory yet."""
        start, end = self._at, self._at + length
        if end > len(self._data):
            return None
        self._at = end
        return self._view[start:end]

    def skip_to(self, position: int) -> None:
        """Skip bytes up to a position that is not before this one."""
        self._at = position - self._start
        while self._at > len(self._data):
            self._next()
            self._at = position - self._start

    def is_zero_to_the_end(self) -> bool:
        """Take all remaining bytes; True if they are all zero."""
        clean = not any(self._view[self._at :])
        while block := self._blocks.next_block():
            self._use(block.data, self._start + len(self._data), block.consumed)
            clean = clean and not block.data.strip(b"\0")
        self._at = len(self._data)
        return clean

    def _next(self) -> None:
        end = self._start + len(self._data)
        block = self._blocks.next_block()
        if block is None:
            raise ValueError(f"the archive ends in the middle, at byte {end} of its inflated bytes; it is truncated")
        self._use(block.data, end, block.consumed)

    def _use(self, data: bytes, start: int, consumed: int) -> None:
        self._data, self._start, self._at = data, start, 0
        self._view = memoryview(data)
        self._consumed(consumed)
