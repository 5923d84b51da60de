# SPDX-License-Identifier: MIT
"""Read back the data written by a copy: data is compared, and zeros are read where the disk stores them.

source   |  DATA   |       ZERO        |  DATA  |
disk     |  DATA   |  DATA  |   HOLE   |  HOLE  |   by its own map, after the flush
read     |  both   |  disk  |    -     |  both  |
"""

from __future__ import annotations

from pydiskimg.errors import VerificationError
from pydiskimg.extents import Extent, Kind
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.pieces import CHUNK_SIZE, WHOLE, cut, pieces
from pydiskimg.transfer.workers import work_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.protocols import Disk, Source
    from pydiskimg.transfer.meter import Meter


def read_back(source: Source, disk: Disk, *, unit: int, workers: int, meter: Meter) -> None:
    """Compare disk, which was flushed, with source, in pieces() of unit, by that many threads.

    Raises VerificationError at the first difference that is found, and as reading does.
    """
    meter.begin(to_read_back(source, disk, unit), counts_zeros=True)
    work_on(to_read_back(source, disk, unit), _ReadingBack(source, disk).piece, meter=meter, workers=workers)


def to_read_back(source: Source, disk: Disk, unit: int) -> Iterator[Extent]:
    """Yield the pieces of source: DATA and ZERO of at most CHUNK_SIZE to be compared, HOLE for unread parts."""
    stored = _StoredOn(disk)
    for piece in pieces(source, unit, zero_size=WHOLE):
        if piece.kind is Kind.DATA:
            yield piece
        else:
            yield from stored.zeros(piece.start, piece.end)


class _StoredOn:
    """The disk's own map, read in order as needed."""

    def __init__(self, disk: Disk) -> None:
        self._extents = disk.stored_extents()
        self._extent: Extent | None = None

    def zeros(self, start: int, end: int) -> Iterator[Extent]:
        """Cut [start, end), which follows the earlier requests, into stored parts (ZERO) and HOLE."""
        while start < end:
            extent = self._at(start)
            stop = min(end, extent.end)
            if extent.kind is Kind.DATA:
                yield from cut(start, stop, CHUNK_SIZE, Kind.ZERO)
            else:
                yield Extent(start, stop - start, Kind.HOLE)
            start = stop

    def _at(self, position: int) -> Extent:
        while self._extent is None or self._extent.end <= position:
            self._extent = next(self._extents, None) or Extent(position, WHOLE, Kind.DATA)
        return self._extent


class _ReadingBack:
    def __init__(self, source: Source, disk: Disk) -> None:
        self._source = source
        self._disk = disk

    def piece(self, piece: Extent, buffer: memoryview) -> None:
        if piece.kind is Kind.HOLE:
            return
        expected = bytearray(piece.length)
        if piece.kind is Kind.DATA:
            self._source.read_into(piece.start, expected)
        with buffer[: piece.length] as found:  # at a page boundary, as required for direct reads from a device
            self._disk.read_into(piece.start, found)
            if expected != found:
                self._differs(piece.start, found, expected)

    def _differs(self, start: int, found: memoryview, expected: bytearray) -> None:
        index = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        raise VerificationError(
            f"{self._disk.name}: reading back byte {start + index} gave {found[index]:#04x}, "
            f"{self._source.name} has {expected[index]:#04x} there; the device did not keep what was written",
            offset=start + index,
        )
