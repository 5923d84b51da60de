# SPDX-License-Identifier: MIT
"""Where the bytes of a virtual disk are: in which file of a backing chain, and at what offset of it.

It is what `qemu-img map` tells, in the same pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.formats.qcow2.placement import HAS_PLACE, IS_DATA, IS_ZERO, placements
from pydiskimg.formats.qcow2.preallocation import has_unfilled_clusters
from pydiskimg.formats.qcow2.reader import Qcow2Source
from pydiskimg.formats.raw import RawSource
from pydiskimg.protocols import Source, check_range
from pydiskimg.stored_ranges import StoredRanges

IS_PRESENT = 16  # the file at this depth decides on the bytes; without it no file of the chain does
_DECIDED = IS_DATA | IS_ZERO
_PLACED_DATA = IS_DATA | HAS_PLACE
_STORED = IS_DATA | IS_PRESENT | HAS_PLACE
_UNFILLED = IS_ZERO | IS_PRESENT | HAS_PLACE

Row = tuple[int, int, int, int, int]
"""start and length (bytes of the virtual disk), depth, flags, place: of bytes that are found in one way, in one place.

depth counts the files of the backing chain, 0 being the image itself. place is where the first byte is in that file,
with the flag HAS_PLACE: compressed data has none.
"""


def map_rows(source: Source, offset: int, length: int) -> tuple[list[str], Iterator[Row]]:
    """Return the names of the files of the chain, by depth, and the rows of [offset, offset + length), in order.

    source is an image that open_image() gave; two neighbours differ in more than their start. Rows are tuples,
    since a map of a small image can have millions of them, and objects would take half of the time.

    Raises ValueError outside of the source and UnsupportedImageError for one of another kind; the iterator is lazy and
    raises what reading the image raises.
    """
    check_range(source, offset, length)
    layers = list(_layers(source))
    return [layer.filename for layer in layers], _joined(_pieces(layers, 0, offset, length))


def _joined(pieces: Iterator[Row]) -> Iterator[Row]:
    """Join neighbours that are found in one place and in one way."""
    start, end, depth, flags, place = 0, 0, -1, 0, 0
    for piece_start, piece_length, piece_depth, piece_flags, piece_place in pieces:
        if (
            piece_flags == flags
            and piece_depth == depth
            and (not flags & HAS_PLACE or piece_place == place + end - start)
        ):
            end += piece_length
            continue
        if end > start:
            yield start, end - start, depth, flags, place
        start, end = piece_start, piece_start + piece_length
        depth, flags, place = piece_depth, piece_flags, piece_place
    if end > start:
        yield start, end - start, depth, flags, place


class _RawLayer:
    """A raw image: every byte is present, and at its own offset."""

    def __init__(self, source: RawSource) -> None:
        self.size = source.size
        self.filename = source.name
        self._ranges = StoredRanges(source)

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        for start, piece_length, is_stored in self._ranges.pieces(offset, length):
            yield start, piece_length, _STORED if is_stored else _UNFILLED, start


class _Qcow2Layer:
    """One qcow2 file of the chain."""

    def __init__(self, source: Qcow2Source) -> None:
        self.size = source.size
        self.filename = source.data.name
        self._mapping = source.mapping
        # The file system is asked about the places of clusters only where QEMU asks it too: it may be slow.
        self._ranges = StoredRanges(source.data) if _is_unfilled(source) else None

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        for start, piece_length, flags, place in placements(self._mapping, offset, length):
            if not flags & _DECIDED:
                yield start, piece_length, flags, place
            elif self._ranges is None or flags != _PLACED_DATA:
                yield start, piece_length, flags | IS_PRESENT, place
            else:
                for at, stored_length, is_stored in self._ranges.pieces(place, piece_length):
                    unfilled = 0 if is_stored else IS_ZERO
                    yield start + at - place, stored_length, _STORED | unfilled, at


_Layer = _RawLayer | _Qcow2Layer


def _layers(source: Source) -> Iterator[_Layer]:
    """The files of the chain, the image itself first."""
    below: Source | None = source
    while below is not None:
        if isinstance(below, Qcow2Source):
            yield _Qcow2Layer(below)
            below = below.backing
        elif isinstance(below, RawSource):
            yield _RawLayer(below)
            below = None
        else:
            raise UnsupportedImageError(f"{below.name}: is neither a raw nor a qcow2 image, so there is no map of it")


def _is_unfilled(source: Qcow2Source) -> bool:
    file = source.file
    return isinstance(file, RawSource) and has_unfilled_clusters(file, source.header, file.stored())


def _pieces(layers: list[_Layer], depth: int, offset: int, length: int) -> Iterator[Row]:
    """The pieces of [offset, offset + length) as the layers from depth on show it."""
    below_size = layers[depth + 1].size if depth + 1 < len(layers) else 0
    for start, piece_length, flags, place in layers[depth].pieces(offset, length):
        if flags & _DECIDED:
            yield start, piece_length, depth, flags, place
            continue
        if below_size <= start:  # nothing lies behind: it reads as zero
            yield start, piece_length, depth, flags | IS_ZERO, place
            continue
        covered = min(below_size - start, piece_length)
        yield from _pieces(layers, depth + 1, start, covered)
        if covered < piece_length:
            yield start + covered, piece_length - covered, depth, flags | IS_ZERO, place + covered
