# SPDX-License-Identifier: MIT
"""Write the differences between a Source and the one below an image into that image.

source   |  A  |  f  |  g  |  0  |
below    |  e  |  f  |  y  |  h  |      beyond its end: zeros
written  |  A  |     |  g  |  0  |      whole clusters; zeros as an entry where the image has one for them
"""

from __future__ import annotations

import threading

from pydiskimg.extents import Kind
from pydiskimg.images.chain import backing_sources, file_of
from pydiskimg.images.map import IS_PRESENT, has_map, map_rows
from pydiskimg.images.qcow2.backing import read_behind
from pydiskimg.images.qcow2.host_offsets import IS_ZERO
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.images.raw import RawSource
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.meter import Meter
from pydiskimg.transfer.pieces import CHUNK_SIZE, MIN_UNIT, cut
from pydiskimg.transfer.workers import work_on, worker_count
from pydiskimg.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Disk, Progress, Source

# Compared in one step: both sides stay in a processor's cache between reading and comparing.
_STEP = 256 * KIB


def write_differences(
    source: Source,
    below: Source | None,
    disk: Disk,
    *,
    unit: int,
    but_its_own: bool = False,
    sparse: bool = True,
    workers: int | None = None,
    progress: Progress | Meter | None = None,
) -> None:
    """Write the differences of source from below to disk, in whole clusters of unit bytes.

    disk shows below at first, as an overlay of it does; None means that it shows zeros. but_its_own leaves out what the
    topmost image of source stores itself. sparse=False writes zeros as data. workers is the number of threads. progress
    counts the compared bytes; a Meter is for one of several passes. Call disk.flush() afterwards. Raises ValueError
    for a unit that is not a power of two from 512 to 2 MiB, and what reading and writing raise.

    >>> from pydiskimg import allow_references, new_overlay, open_image, open_image_disk, write_differences
    >>> new_overlay("small.qcow2", 64 << 20, backing_file=b"disk.raw", backing_format=b"raw")
    >>> with allow_references(".") as references, open_image_disk("small.qcow2", references=references) as disk:
    ...     with open_image("disk.qcow2") as source, open_image("disk.raw") as below:
    ...         write_differences(source, below, disk, unit=65536)
    """
    if not MIN_UNIT <= unit <= CHUNK_SIZE or unit & (unit - 1):
        raise ValueError(f"unit {unit} is not a power of two from {MIN_UNIT} to {CHUNK_SIZE}")

    def found() -> Iterator[Extent]:
        return _pieces(source, below, unit, but_its_own=but_its_own)

    meter = progress if isinstance(progress, Meter) else Meter(progress)
    meter.begin(found())
    comparing = _Comparing(source, below, disk, unit, sparse=sparse)
    work_on(found(), comparing.piece, meter=meter, workers=worker_count(workers))


class _Comparing:
    """Writes the bytes of a piece that differ from below."""

    def __init__(self, source: Source, below: Source | None, disk: Disk, unit: int, *, sparse: bool) -> None:
        self._source = source
        self._below = below
        self._disk = disk
        self._unit = unit
        self._zeros = bytearray(unit) if sparse else None
        self._buffers = threading.local()

    def piece(self, piece: Extent, buffer: memoryview) -> None:
        step = max(_STEP, self._unit)
        for at in range(piece.start, piece.end, step):
            self._compare(at, buffer[: min(step, piece.end - at)])

    def _compare(self, at: int, wanted: memoryview) -> None:
        self._source.read_into(at, wanted)
        found = self._found(at, len(wanted))
        if found == wanted:
            return
        start, kind = 0, None
        for offset in range(0, len(wanted), self._unit):
            stop = min(offset + self._unit, len(wanted))
            now = self._kind(wanted[offset:stop], found[offset:stop])
            if now is not kind:
                self._put(at, wanted, start, offset, kind)
                start, kind = offset, now
        self._put(at, wanted, start, len(wanted), kind)

    def _found(self, at: int, length: int) -> bytearray:
        """The bytes of below, in a buffer of this thread; a bytearray, which on the left compares by memcmp."""
        found: bytearray | None = getattr(self._buffers, "found", None)
        if found is None or len(found) != length:
            found = self._buffers.found = bytearray(length)
        if self._below is not None:
            with memoryview(found) as view:
                read_behind(self._below, at, view)
        return found

    def _kind(self, wanted: memoryview, found: bytearray) -> Kind | None:
        """None if both are the same."""
        if found == wanted:
            return None
        return Kind.ZERO if self._zeros is not None and self._zeros[: len(wanted)] == wanted else Kind.DATA

    def _put(self, at: int, wanted: memoryview, start: int, stop: int, kind: Kind | None) -> None:
        if kind is Kind.ZERO:
            self._disk.zero(at + start, stop - start)
        elif kind is Kind.DATA:
            self._disk.write(at + start, wanted[start:stop])


def _pieces(source: Source, below: Source | None, unit: int, *, but_its_own: bool) -> Iterator[Extent]:
    """Yield the ranges to compare, as pieces that begin and end at multiples of unit, or at the end of source."""
    start = end = 0
    for first, stop in _ranges(source, below, but_its_own=but_its_own):
        if first // unit * unit > end:
            yield from cut(start, end, CHUNK_SIZE, Kind.DATA)
            start = first // unit * unit
        end = min(source.size, -(-stop // unit) * unit)
        whole = end - end % CHUNK_SIZE
        if start < whole:
            yield from cut(start, whole, CHUNK_SIZE, Kind.DATA)
            start = whole
    yield from cut(start, end, CHUNK_SIZE, Kind.DATA)


def _ranges(source: Source, below: Source | None, *, but_its_own: bool) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of them, ascending, without ranges that are zero in both or from one file in both."""
    common = _depth_of(below, source)
    data = _Data(below)
    for start, length, depth, flags in _rows(source):
        is_own = but_its_own and depth == 0 and flags & IS_PRESENT
        if is_own or (common is not None and depth >= common):
            continue
        if flags & IS_ZERO:
            yield from data.within(start, start + length)
        else:
            yield start, start + length


def _rows(source: Source) -> Iterator[tuple[int, int, int, int]]:
    """Start, length, depth and flags as from map_rows(); a source that is not an image has its extents at depth 0."""
    if has_map(source):
        for start, length, depth, flags, _ in map_rows(source, 0, source.size)[1]:
            yield start, length, depth, flags
        return
    for extent in source.extents():
        yield extent.start, extent.length, 0, 0 if extent.kind is Kind.DATA else IS_ZERO


class _Data:
    """The data of a source, requested in ascending order; None has none."""

    def __init__(self, source: Source | None) -> None:
        extents: Iterable[Extent] = () if source is None else source.extents()
        self._extents = (extent for extent in extents if extent.kind is Kind.DATA)
        self._next = next(self._extents, None)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield [start, end) of the data there."""
        while self._next is not None and self._next.start < end:
            if self._next.end > start:
                yield max(start, self._next.start), min(end, self._next.end)
            if self._next.end > end:
                return
            self._next = next(self._extents, None)


def _depth_of(below: Source | None, source: Source) -> int | None:
    """The depth of below in the chain of source, which shows the same in both; None if it is not in it."""
    if not isinstance(below, Qcow2Source | RawSource):
        return None
    own = file_of(below).identity
    return next(
        (depth for depth, layer in enumerate(backing_sources(source), 1) if file_of(layer).identity == own), None
    )
