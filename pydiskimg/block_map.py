# SPDX-License-Identifier: MIT
"""Where the bytes of a virtual disk are: in which file of a backing chain, and at what offset of it.

It is what `qemu-img map` tells, in the same pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.formats.qcow2.placement import HAS_PLACE, IS_COMPRESSED, IS_DATA, IS_ZERO, placements
from pydiskimg.formats.qcow2.preallocation import has_unfilled_clusters
from pydiskimg.formats.qcow2.reader import Qcow2Source
from pydiskimg.formats.raw import RawSource
from pydiskimg.protocols import Source, check_range
from pydiskimg.stored_ranges import StoredRanges

IS_PRESENT = 16
_DECIDED = IS_DATA | IS_ZERO
_PLACED_DATA = IS_DATA | HAS_PLACE
_STORED = IS_DATA | IS_PRESENT | HAS_PLACE
_UNFILLED = IS_ZERO | IS_PRESENT | HAS_PLACE

Row = tuple[int, int, int, int, int]
"""start, length, depth, flags, and the place of the first byte in the file (with HAS_PLACE)."""


class MapEntry:
    """Bytes [start, start + length) of the virtual disk that are found in one place and in one way.

    depth counts the files of the backing chain, 0 being the image itself. offset is where the bytes are in the file
    called filename: None for compressed data, and for what has no place.
    """

    __slots__ = ("depth", "filename", "flags", "length", "offset", "start")

    def __init__(self, start: int, length: int, depth: int, flags: int, offset: int | None, filename: str) -> None:
        self.start = start
        self.length = length
        self.depth = depth
        self.flags = flags
        self.offset = offset
        self.filename = filename

    @property
    def present(self) -> bool:
        """True when the file at this depth decides on the bytes; False when no file of the chain does."""
        return bool(self.flags & IS_PRESENT)

    @property
    def zero(self) -> bool:
        """True when the bytes are known to read as zero."""
        return bool(self.flags & IS_ZERO)

    @property
    def data(self) -> bool:
        """True when the bytes are stored; with zero as well in a place that the file system has not filled."""
        return bool(self.flags & IS_DATA)

    @property
    def compressed(self) -> bool:
        """True when the bytes are stored compressed."""
        return bool(self.flags & IS_COMPRESSED)

    def __repr__(self) -> str:
        words = [word for word in ("present", "zero", "data", "compressed") if getattr(self, word)]
        return f"MapEntry({self.start}, {self.length}, depth={self.depth}, {' '.join(words)}, offset={self.offset})"


def block_map(source: Source, offset: int = 0, length: int | None = None) -> Iterator[MapEntry]:
    """Yield the entries of [offset, offset + length) of an image that open_image() gave, lazily and in order.

    Without length it is all to the end. Two neighbours differ in more than their start. Raises what reading the
    image raises, also late, and UnsupportedImageError for a source of another kind.
    """
    files, rows = map_rows(source, offset, source.size - offset if length is None else length)
    for start, row_length, depth, flags, place in rows:
        yield MapEntry(start, row_length, depth, flags, place if flags & HAS_PLACE else None, files[depth])


def map_rows(source: Source, offset: int, length: int) -> tuple[list[str], Iterator[Row]]:
    """Return the names of the files of the chain, by depth, and the entries that block_map() yields, as tuples.

    A map of a small image can have millions of entries, and objects would take half of the time. Errors as for
    block_map().
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
