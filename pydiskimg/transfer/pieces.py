# SPDX-License-Identifier: MIT
"""The pieces of a copy: the extents of a Source, cut and widened to whole units; zeros inside data.

extents   |  DATA    |     HOLE        |DATA|HOLE|   ZERO   |
units     |      |      |      |      |      |      |      |
pieces    |    DATA     |    ZERO     | DATA |    ZERO     |
"""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import GIB, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.protocols import Source

# A multiple of every qcow2 cluster size, so that no cluster is decompressed twice or written in parts.
CHUNK_SIZE = 2 * MIB
MIN_UNIT = 512  # bytes in the smallest cluster
# Zeroing is one call to the kernel; the limit keeps progress moving and signals answered.
ZERO_CHUNK_SIZE = GIB
# Reading a shorter gap between data, and finding it to be zero, is faster than making it a separate piece.
SHORT_GAP = 64 * KIB
# In a batch of this many pieces the cost of each is low; more would leave other threads without work at the end.
MOST_PIECES = 256
# If nothing is done for zeros, they are not divided: a small image can claim exabytes of them.
WHOLE = 1 << 63


def pieces(
    source: Source, unit: int, *, zero_size: int = ZERO_CHUNK_SIZE, short_gap: int = SHORT_GAP
) -> Iterator[Extent]:
    """Yield the parts of source, from 0 to its size, as DATA (at most 2 MiB) and ZERO (at most zero_size).

    Pieces begin and end at multiples of unit (bytes, a power of two, at most 2 MiB); the last ends at the source's
    size. A unit is DATA when any byte of it is DATA in source, and in the bytes before such a unit when they are less
    than short_gap (bytes; 0: never). Raises InvalidImageError when the extents have gaps, or do not end where the
    source does.
    """
    start = end = 0  # the DATA that was found and not yet yielded; start is where the next piece begins
    size, least_gap = source.size, max(short_gap, 1)
    for extent in checked_extents(source, unit):
        if extent.kind is not Kind.DATA:
            continue
        first = extent.start - extent.start % unit
        if first - end >= least_gap:
            if start < end:
                yield Extent(start, end - start, Kind.DATA)  # in one chunk, as the rest was cut off below
            yield from cut(end, first, zero_size, Kind.ZERO)
            start = first
        end = extent.start + extent.length
        end = min(end + -end % unit, size)
        whole = end - end % CHUNK_SIZE
        if start < whole:
            yield from cut(start, whole, CHUNK_SIZE, Kind.DATA)
            start = whole
    yield from cut(start, end, CHUNK_SIZE, Kind.DATA)
    yield from cut(end, size, zero_size, Kind.ZERO)


class PieceBatch:
    """Pieces that are worked on in one step: data that fits into one buffer together, and zeros; length is bytes."""

    __slots__ = ("data", "length", "zeros")

    def __init__(self) -> None:
        self.data: list[Extent] = []
        self.zeros: list[Extent] = []
        self.length = 0

    @property
    def pieces(self) -> int:
        """The number of pieces."""
        return len(self.data) + len(self.zeros)

    def add(self, piece: Extent) -> None:
        """Take one more piece."""
        (self.data if piece.kind is Kind.DATA else self.zeros).append(piece)
        self.length += piece.length


def batches(pieces: Iterator[Extent], *, skips_zeros: bool = False) -> Iterator[PieceBatch]:
    """Yield the pieces in batches of at most CHUNK_SIZE bytes of data: a step for each small one would take long.

    Zeros of more than that are a batch by themselves, so that another thread zeroes them; skips_zeros says
    that nothing is done for them.
    """
    batch, room = PieceBatch(), CHUNK_SIZE
    for piece in pieces:
        counts = piece.kind is Kind.DATA or not skips_zeros
        if batch.length and ((counts and piece.length > room) or batch.pieces == MOST_PIECES):
            yield batch
            batch, room = PieceBatch(), CHUNK_SIZE
        batch.add(piece)
        if piece.kind is Kind.DATA or (counts and piece.length > room):
            room -= piece.length
    if batch.length:
        yield batch


def checked_extents(source: Source, unit: int = 1) -> Iterator[Extent]:
    """Yield the extents of source, as coarse_extents() does for a unit of more than a byte.

    Raises InvalidImageError when they have gaps, or do not end where source does.
    """
    position = 0
    for extent in source.coarse_extents(unit):
        if extent.start != position:
            break
        position += extent.length
        yield extent
    if position != source.size:
        raise InvalidImageError(
            f"{source.name}: its extents cover {position} bytes of {source.size}; they cannot be relied on"
        )


def cut(start: int, end: int, size: int, kind: Kind) -> Iterator[Extent]:
    """Cut [start, end) of a kind at multiples of size (bytes)."""
    while start < end:
        stop = min(end, start - start % size + size)
        yield Extent(start, stop - start, kind)
        start = stop


_COMPARED = 64 * KIB
_NOT_ZERO = b"\0" + b"\1" * 255


class ZeroRuns:
    """Finds runs of units that are zero in a piece of data. unit is bytes; safe from several threads."""

    def __init__(self, unit: int) -> None:
        self._unit = unit
        self._most = max(1, _COMPARED // unit)
        self._zeros = bytearray(self._most * unit)

    def __call__(self, view: memoryview) -> Iterator[tuple[int, int, bool]]:
        """Yield (start, end, is_zero) of the runs of zero and other units in view; the last unit may be cut."""
        unit, start = self._unit, 0
        marks = self._marks(view)
        index = marks.find(0)
        others = marks.translate(_NOT_ZERO) if index >= 0 else b""
        while index >= 0:
            end = others.find(1, index)
            after = self._end_of_zeros(view, index, end if end >= 0 else len(marks))
            if after > index:
                if start < index * unit:
                    yield start, index * unit, False
                start = min(after * unit, len(view))
                yield index * unit, start, True
            index = marks.find(0, after + 1)
        if start < len(view):
            yield start, len(view), False

    def _marks(self, view: memoryview) -> bytes:
        """One byte for each unit: nonzero if two samples suffice to show that the unit is not zero."""
        first = view[:: self._unit].tobytes()
        middle = view[self._unit // 2 :: self._unit].tobytes().ljust(len(first), b"\0")
        both = int.from_bytes(first, "little") | int.from_bytes(middle, "little")
        return both.to_bytes(len(first), "little")

    def _end_of_zeros(self, view: memoryview, index: int, end: int) -> int:
        """The first unit from index on, at most end, that is not zero: compared all at once, then one, two, four ..."""
        unit, count = self._unit, min(end - index, self._most)
        while index < end:
            stop = min(index + count, end)
            part = view[index * unit : stop * unit]
            # Compares by memcmp, which leaves at the first byte that differs, where == goes through a view's items.
            if self._zeros.startswith(part):
                index = stop
                count = min(2 * count, self._most)
            elif count == 1:
                break
            else:
                count = 1
        return index
