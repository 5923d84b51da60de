# SPDX-License-Identifier: MIT
"""The records of a dump, one after the other, from the chunks of bytes that blocks.py makes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from pydiskimg.errors import InvalidImageError, storage_error
from pydiskimg.files.dump.layout import SPCL, TP_BSIZE, Spcl, sum_is_right

# Bytes after the last record, such as those of an image in a stream; a hole in a tar can make any number of them.
_PADDING_LIMIT = 16 << 20

Read = Callable[[int], bytes]
"""Called with a number of bytes: returns at least one and at most that many of the next bytes, and b"" at the end."""


class Input:
    """The stored dump, read from start to end; consumed counts the bytes read so far."""

    def __init__(self, read: Read, name: str) -> None:
        self.name = name
        self.consumed = 0
        self._read = read

    def _some(self, length: int) -> bytes:
        try:
            data = self._read(length)
        except OSError as error:
            raise storage_error(error, self.name, f"cannot read after {self.consumed} bytes") from error
        self.consumed += len(data)
        return data

    def up_to(self, length: int, *, enough: int | None = None) -> bytes:
        """Return length bytes, or fewer if that is enough; at the end fewer than that.

        Raises StorageError when the system refuses.
        """
        pieces: list[bytes] = []
        found = 0
        while found < (enough or length) and (piece := self._some(length - found)):
            pieces.append(piece)
            found += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Tape:
    """Returns records. Each of the chunks is whole records; close() closes them.

    record is the number of the next record, as c_tapea counts them.
    """

    def __init__(self, chunks: Generator[bytes, None, None], *, name: str, order: str) -> None:
        self.name = name
        self.order = order
        self._chunks = chunks
        self._spcl = SPCL[order]
        self._chunk = memoryview(b"")
        self._position = 0
        self._end = 0
        self._before = 0

    @property
    def record(self) -> int:
        return self._before + self._position // TP_BSIZE

    def close(self) -> None:
        """Stop the threads that read ahead. May be called repeatedly."""
        self._chunks.close()

    def header(self) -> Spcl:
        """Return the next record as a header. Raises InvalidImageError when its checksum is wrong."""
        if self._position == self._end:
            self._advance()
        start = self._position
        self._position = start + TP_BSIZE
        if not sum_is_right(self._chunk[start : start + TP_BSIZE], self.order):
            raise InvalidImageError(
                f"{self.name}: record {self._before + start // TP_BSIZE}: the checksum of the header is wrong; "
                "the dump is damaged"
            )
        return Spcl._make(self._spcl.unpack_from(self._chunk, start))

    def data(self, count: int) -> Iterator[memoryview]:
        """Yield the next count records in as few pieces as possible."""
        left = count * TP_BSIZE
        while left:
            if self._position == self._end:
                self._advance()
            start = self._position
            length = min(left, self._end - start)
            self._position = start + length
            left -= length
            yield self._chunk[start : start + length]

    def drain(self) -> None:
        """Read the stream to its end, so that its writer does not fail.

        Raises InvalidImageError when more bytes follow than the padding of a tape.
        """
        left = _PADDING_LIMIT
        for chunk in self._chunks:
            left -= len(chunk)
            if left < 0:
                raise InvalidImageError(
                    f"{self.name}: more than {_PADDING_LIMIT} bytes follow the end mark after record {self.record}; a "
                    "dump has only the rest of a tape block there"
                )

    def _advance(self) -> None:
        self._before += self._end // TP_BSIZE
        self._position = self._end = 0
        chunk = next(self._chunks, None)
        if chunk is None:
            raise InvalidImageError(
                f"{self.name}: the dump ends after {self._before} records without its end mark; it is truncated, or "
                "continues on another volume"
            )
        self._chunk = memoryview(chunk)
        self._end = len(chunk)
