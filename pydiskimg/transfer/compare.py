# SPDX-License-Identifier: MIT
"""Compare two Sources: parts that are zero in both are not read, the rest is read by several threads.

a        |  DATA  |  HOLE  |  DATA  |   HOLE   |
b        |  DATA  |  DATA  |  ZERO  |   ZERO   |   beyond the end of the shorter one: zeros
compared |  both  | b is 0?| a is 0?|    -     |
"""

from __future__ import annotations

import threading

from pydiskimg.extents import Extent, Kind
from pydiskimg.startup import TYPE_CHECKING, ValueObject
from pydiskimg.transfer.meter import Meter
from pydiskimg.transfer.pieces import checked_extents, cut
from pydiskimg.transfer.workers import work_on, worker_count
from pydiskimg.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydiskimg.protocols import Progress, Source, WritableBuffer

# Compared in one step: two of these stay in a processor's cache between reading and comparing.
CHUNK_SIZE = 256 * KIB
# Comparing this much is faster than finding out which parts of it are zero in both.
_UNIT = 64 * KIB
_SMALL = 512


class Comparison(ValueObject):
    """The result of compare().

    identical is True when no difference was found. offset is the first byte that differs, None when there is none.
    difference is "content", None, or after a strict comparison also "allocation" or "size". sizes_differ is True when
    one of the two is longer; they are identical all the same when the rest of it is zero.

    >>> from pydiskimg import MemoryDisk, compare
    >>> result = compare(MemoryDisk(1 << 20), MemoryDisk(2 << 20))
    >>> result.identical, result.sizes_differ
    (True, True)
    """

    def __init__(self, difference: str | None, offset: int | None, *, sizes_differ: bool) -> None:
        self.difference = difference
        self.offset = offset
        self.sizes_differ = sizes_differ

    @property
    def identical(self) -> bool:
        """True when no difference was found."""
        return self.difference is None


def compare(
    a: Source, b: Source, *, strict: bool = False, progress: Progress | None = None, workers: int | None = None
) -> Comparison:
    """Compare the bytes of a and b; the shorter one counts as continued with zeros. Nothing is written.

    strict also requires equal sizes and the same Kind of extent everywhere. workers is the number of threads, at most
    8; None means one for each processor. Memory is bounded by workers * 4 MiB and what the sources need. progress is
    called with the compared bytes and their total. Raises what reading the sources raises.

    >>> from pydiskimg import MemoryDisk, compare
    >>> a, b = MemoryDisk(1 << 20), MemoryDisk(1 << 20)
    >>> b.write(70000, b"x")
    >>> result = compare(a, b)
    >>> result.difference, result.offset
    ('content', 70000)
    """
    size = max(a.size, b.size)
    if strict and a.size != b.size:
        return Comparison("size", min(a.size, b.size), sizes_differ=True)
    work = _Comparing(a, b, strict=strict)
    meter = Meter(progress)
    meter.begin(_Comparing(a, b, strict=strict).pieces(size))  # another one: it notes what it finds
    work_on(work.pieces(size), work.compare, meter=meter, workers=worker_count(workers))
    return Comparison(*work.first, sizes_differ=a.size != b.size)


class _Comparing:
    """Pieces are assigned in order and none after a difference, so that the least offset found is the first one."""

    def __init__(self, a: Source, b: Source, *, strict: bool) -> None:
        self._a = a
        self._b = b
        self._strict = strict
        self._lock = threading.Lock()
        self._spare = threading.local()
        self.first: tuple[str | None, int | None] = (None, None)

    def pieces(self, size: int) -> Iterator[Extent]:
        """Yield DATA for parts that must be read, at most a chunk, and ZERO for others."""
        start = end = 0  # the DATA that was found and not yet yielded
        for position, length, kind_a, kind_b in self._stretches(size):
            if self._strict and kind_a is not kind_b:
                yield from cut(start, end, CHUNK_SIZE, Kind.DATA)
                self._found("allocation", position)
                return
            if kind_a is not Kind.DATA and kind_b is not Kind.DATA and length >= _UNIT:
                yield from self._until_found(cut(start, end, CHUNK_SIZE, Kind.DATA))
                yield from self._until_found([Extent(position, length, Kind.ZERO)])
                start = end = position + length
            else:
                end = position + length
                whole = end - end % CHUNK_SIZE
                if start < whole:
                    yield from self._until_found(cut(start, whole, CHUNK_SIZE, Kind.DATA))
                    start = whole
            if self.first[1] is not None:
                return
        yield from self._until_found(cut(start, end, CHUNK_SIZE, Kind.DATA))

    def _stretches(self, size: int) -> Iterator[tuple[int, int, Kind, Kind]]:
        """Yield (start, length, kind in a, kind in b) up to size; small ones are distinct only where they matter."""
        if not self._strict:
            return _aligned(_kinds(self._a, size), _kinds(self._b, size))
        from pydiskimg.transfer.allocation import columns_of, side_by_side

        columns = [source.kind_columns() or columns_of(checked_extents(source)) for source in (self._a, self._b)]
        return side_by_side(columns[0], columns[1], _UNIT)

    def compare(self, piece: Extent, buffer: memoryview) -> None:
        """Compare one piece, in buffer."""
        if piece.kind is not Kind.DATA:
            return
        mine = self._buffer(piece.length)
        with buffer[: piece.length] as other:
            _read(self._a, piece.start, mine)
            _read(self._b, piece.start, other)
            # A bytearray on the left compares by memcmp.
            if mine != other:
                self._found("content", piece.start + _first_difference(mine, other))

    def _buffer(self, length: int) -> bytearray:
        buffer: bytearray | None = getattr(self._spare, "buffer", None)
        if buffer is None or len(buffer) != length:
            buffer = self._spare.buffer = bytearray(length)
        return buffer

    def _until_found(self, pieces: Iterable[Extent]) -> Iterator[Extent]:
        for piece in pieces:
            if self.first[1] is not None:
                return
            yield piece

    def _found(self, difference: str, offset: int) -> None:
        with self._lock:
            if self.first[1] is None or offset < self.first[1]:
                self.first = (difference, offset)


def _kinds(source: Source, size: int) -> Iterator[Extent]:
    """The extents of source, small ones joined, continued with a HOLE up to size."""
    yield from checked_extents(source, _UNIT)
    if source.size < size:
        yield Extent(source.size, size - source.size, Kind.HOLE)


def _aligned(a: Iterator[Extent], b: Iterator[Extent]) -> Iterator[tuple[int, int, Kind, Kind]]:
    """Yield (start, length, kind in a, kind in b) for the ranges in which neither changes."""
    one, other = next(a, None), next(b, None)
    position = 0
    while one is not None and other is not None:
        end = min(one.end, other.end)
        yield position, end - position, one.kind, other.kind
        position = end
        if one.end == end:
            one = next(a, None)
        if other.end == end:
            other = next(b, None)


def _read(source: Source, start: int, buffer: WritableBuffer) -> None:
    """Fill buffer from start on, with zeros beyond the end of source."""
    inside = max(0, min(len(buffer), source.size - start))
    with memoryview(buffer) as view:
        if inside:
            source.read_into(start, view[:inside])
        view[inside:] = bytes(len(view) - inside)


def _first_difference(mine: bytearray, other: memoryview) -> int:
    """The first index at which two unequal buffers differ: halves are compared as a whole."""
    start, end = 0, len(mine)
    while end - start > _SMALL:
        middle = (start + end) // 2
        if mine[start:middle] == other[start:middle]:
            start = middle
        else:
            end = middle
    return next(index for index in range(start, end) if mine[index] != other[index])
