# SPDX-License-Identifier: MIT
"""Where the bytes of a virtual disk are: in which file of a backing chain, and at what offset of it.

It is what `qemu-img map` tells, in the same pieces.
"""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.images.qcow2.host_offsets import HAS_OFFSET, IS_DATA, IS_ZERO, host_ranges, host_series
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.images.qcow2.refcount_reader import has_unfilled_clusters
from pydiskimg.images.raw import RawSource
from pydiskimg.protocols import check_range
from pydiskimg.startup import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from pydiskimg.images.qcow2.host_offsets import Parts, Series
    from pydiskimg.protocols import Source

IS_PRESENT = 16  # the file at this depth decides on the bytes; without it no file of the chain does
_DECIDED = IS_DATA | IS_ZERO
_LOCATED_DATA = IS_DATA | HAS_OFFSET
STORED = IS_DATA | IS_PRESENT | HAS_OFFSET  # flags of bytes that are there
UNFILLED = IS_ZERO | IS_PRESENT | HAS_OFFSET  # of bytes that have a place, and are zero as nothing was written there
# By the flags of a piece, those of a row where nothing lies under the file: what is not decided there is zero.
_ALONE = tuple(flags | (IS_PRESENT if flags & _DECIDED else IS_ZERO) for flags in range(IS_PRESENT))

Row: TypeAlias = "tuple[int, int, int, int, int]"
"""start and length (bytes of the virtual disk), depth, flags, host: of bytes that are found in one way, in a row.

depth counts the files of the backing chain, 0 being the image itself. host is the offset of the first byte in that
file, with the flag HAS_OFFSET: compressed data has none.
"""

RowSeries: TypeAlias = "tuple[int, int, int, Parts, int]"
"""start, length, depth, parts, host: rows in a row of one file, whose host offsets adjoin as their starts do.

parts has the length and flags of each row; all of them or none have HAS_OFFSET.
"""


def map_rows(source: Source, offset: int, length: int) -> tuple[list[str], Iterator[Row]]:
    """Return the names of the files of the chain, by depth, and the rows of [offset, offset + length), in order.

    source is an image that open_image() gave; two neighbours differ in more than their start. Rows are tuples,
    since a map of a small image can have millions of them, and objects would take half of the time.

    Raises ValueError outside of the source and UnsupportedImageError for one of another kind; the iterator is lazy and
    raises what reading the image raises.
    """
    names, found = map_series(source, offset, length)
    return names, _rows(found)


def map_series(source: Source, offset: int, length: int) -> tuple[list[str], Iterator[RowSeries]]:
    """Return what map_rows() does, with many rows in each step of the iterator where they are small."""
    check_range(source, offset, length)
    layers = list(layers_of(source))
    return [layer.filename for layer in layers], _joined(_series(layers, offset, length))


def _rows(found: Iterator[RowSeries]) -> Iterator[Row]:
    for start, _, depth, parts, first_host in found:
        position, host = start, first_host
        for length, flags in parts:
            yield position, length, depth, flags, host
            position += length
            host += length


def _joined(found: Iterator[RowSeries]) -> Iterator[RowSeries]:
    """Join neighbours that are found one after the other and in one way."""
    start, end, depth, flags, host = 0, 0, -1, 0, 0  # the row that the next series may continue
    for next_start, next_length, next_depth, parts, next_host in found:
        length, next_flags = parts[0]
        if next_flags == flags and next_depth == depth and (not flags & HAS_OFFSET or next_host == host + end - start):
            end += length
        else:
            if end > start:
                yield start, end - start, depth, ((end - start, flags),), host
            start, end = next_start, next_start + length
            depth, flags, host = next_depth, next_flags, next_host
        if len(parts) > 1:
            last_length, last_flags = parts[-1]
            last = next_start + next_length - last_length
            yield start, last - start, depth, ((end - start, flags), *parts[1:-1]), host
            start, end, flags, host = last, last + last_length, last_flags, host + last - start
    if end > start:
        yield start, end - start, depth, ((end - start, flags),), host


class MapLayer(Protocol):
    """One file of a chain: source, of which name is the file with the data, over below; sizes are bytes."""

    size: int
    filename: str
    below: Source | None

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (start, length, flags, host) of [offset, offset + length), in order; neighbours may be alike."""

    def series_alone(self, offset: int, length: int) -> Iterator[Series] | None:
        """Return the rows where no file lies under this one; None without a shorter way to them than pieces()."""


class Qcow2Layer:
    """One qcow2 file of the chain."""

    def __init__(self, source: Source) -> None:
        assert isinstance(source, Qcow2Source)
        self.below = source.backing
        self.size = source.size
        self.filename = source.data.name
        self._mapping = source.mapping
        # The file system is asked about the host offsets of clusters only where QEMU asks it too: it may be slow.
        self._ranges = None
        if _is_unfilled(source):
            from pydiskimg.images.raw_layer import StoredRanges

            self._ranges = StoredRanges(source.data)

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        for start, piece_length, flags, host in host_ranges(self._mapping, offset, length):
            if not flags & _DECIDED:
                yield start, piece_length, flags, host
            elif self._ranges is None or flags != _LOCATED_DATA:
                yield start, piece_length, flags | IS_PRESENT, host
            else:
                for at, stored_length, is_stored in self._ranges.pieces(host, piece_length):
                    unfilled = 0 if is_stored else IS_ZERO
                    yield start + at - host, stored_length, STORED | unfilled, at

    def series_alone(self, offset: int, length: int) -> Iterator[Series] | None:
        return host_series(self._mapping, offset, length, _ALONE) if self._ranges is None else None


def layers_of(source: Source) -> Iterator[MapLayer]:
    """Yield the files of the chain, the image itself first."""
    below: Source | None = source
    while below is not None:
        row = FORMATS.get(below.format)
        if row is None:
            raise UnsupportedImageError(
                f"{below.name}: is neither a {' nor a '.join(FORMATS)} image, so there is no map of it"
            )
        layer = row.layer(below)
        yield layer
        below = layer.below


def _is_unfilled(source: Qcow2Source) -> bool:
    file = source.file
    return isinstance(file, RawSource) and has_unfilled_clusters(file, source.header, file.stored())


def _series(layers: list[MapLayer], offset: int, length: int) -> Iterator[RowSeries]:
    """The pieces of [offset, offset + length) as the image shows it, as series."""
    below_size = layers[1].size if len(layers) > 1 else 0
    covered = min(length, max(0, below_size - offset))
    alone = layers[0].series_alone(offset + covered, length - covered) if covered < length else ()
    for start, piece_length, depth, flags, host in pieces_of(layers, 0, offset, length if alone is None else covered):
        yield start, piece_length, depth, ((piece_length, flags),), host
    for start, series_length, parts, host in alone or ():
        yield start, series_length, 0, parts, host


def pieces_of(layers: list[MapLayer], depth: int, offset: int, length: int) -> Iterator[Row]:
    """Yield the pieces of [offset, offset + length) as the layers from depth on show it."""
    below_size = layers[depth + 1].size if depth + 1 < len(layers) else 0
    for start, piece_length, flags, host in layers[depth].pieces(offset, length):
        if flags & _DECIDED:
            yield start, piece_length, depth, flags, host
            continue
        if below_size <= start:  # the backing file has ended: it reads as zero
            yield start, piece_length, depth, flags | IS_ZERO, host
            continue
        covered = min(below_size - start, piece_length)
        yield from pieces_of(layers, depth + 1, start, covered)
        if covered < piece_length:
            yield start + covered, piece_length - covered, depth, flags | IS_ZERO, host + covered
