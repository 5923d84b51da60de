# SPDX-License-Identifier: MIT
"""The map of a virtual disk: which file of a backing chain has its bytes, and at which offset.

It equals the output of `qemu-img map`, in the same pieces.
"""

from __future__ import annotations

from itertools import islice

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.images.qcow2.host_offsets import HAS_OFFSET, IS_DATA, IS_ZERO, host_columns, host_ranges
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.images.qcow2.refcount_reader import has_unfilled_clusters
from pydiskimg.images.raw import RawSource
from pydiskimg.protocols import check_range
from pydiskimg.startup import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.images.qcow2.host_offsets import Columns
    from pydiskimg.protocols import Source

IS_PRESENT = 16  # the file at this depth determines the bytes; without it none of the chain does
_DECIDED = IS_DATA | IS_ZERO
_LOCATED_DATA = IS_DATA | HAS_OFFSET
STORED = IS_DATA | IS_PRESENT | HAS_OFFSET  # flags of existing bytes
UNFILLED = IS_ZERO | IS_PRESENT | HAS_OFFSET  # of allocated bytes that are zero because nothing was written to them
# Maps the flags of a piece to those of a row of the lowest file: undetermined bytes are zero.
_ALONE = bytes(flags | (IS_PRESENT if flags & _DECIDED else IS_ZERO) for flags in range(IS_PRESENT))

_AT_ONCE = 1024  # rows that are found one by one and collected in columns

Row = tuple[int, int, int, int, int]
"""start and length (bytes of the virtual disk), depth, flags and host of consecutive bytes with the same properties.

depth counts the files of the backing chain; 0 is the image itself. host is the offset of the first byte in that file,
if the flag HAS_OFFSET is set; compressed data has none.
"""

RowColumns = tuple[list[int], list[int], list[int], list[int], list[int]]
"""The fields of one row or more, in order: starts, lengths, depths, flags, hosts."""


def map_rows(source: Source, offset: int, length: int) -> tuple[list[str], Iterator[Row]]:
    """Return the names of the files of the chain, by depth, and the rows of [offset, offset + length), in order.

    source is an image from open_image(); two neighbours differ in more than their start. Rows are tuples, because a map
    of a small image can have millions of them, and objects would take half of the time. Raises ValueError outside of
    the source and UnsupportedImageError for a source of another kind; the iterator is lazy and raises as reading the
    image does.
    """
    names, found = map_columns(source, offset, length)
    return names, _rows(found)


def map_columns(source: Source, offset: int, length: int) -> tuple[list[str], Iterator[RowColumns]]:
    """Return the result of map_rows(), with many rows in each step of the iterator; host is undefined without
    HAS_OFFSET.

    The lists are the caller's.
    """
    check_range(source, offset, length)
    layers = list(layers_of(source))
    return [layer.filename for layer in layers], _joined(_columns(layers, offset, length))


def _rows(found: Iterator[RowColumns]) -> Iterator[Row]:
    for columns in found:
        for start, length, depth, flags, host in zip(*columns, strict=True):
            yield start, length, depth, flags, host if flags & HAS_OFFSET else 0


def _joined(found: Iterator[RowColumns]) -> Iterator[RowColumns]:
    """Join the last row of some columns with the first of the next ones if they continue each other."""
    held: Row | None = None  # the row that the next one may continue
    for columns in found:
        starts, lengths, depths, flags, hosts = columns
        if held is None:
            pass
        elif _continues(held, depths[0], flags[0], hosts[0]):
            starts[0], hosts[0] = held[0], held[4]
            lengths[0] += held[1]
        else:
            for column, value in zip(columns, held, strict=True):
                column.insert(0, value)
        held = starts.pop(), lengths.pop(), depths.pop(), flags.pop(), hosts.pop()
        if starts:
            yield columns
    if held is not None:
        start, length, depth, last_flags, host = held
        yield [start], [length], [depth], [last_flags], [host]


def _continues(row: Row, depth: int, flags: int, host: int) -> bool:
    """True if the row and the next one, given by their fields, continue each other."""
    return flags == row[3] and depth == row[2] and (not flags & HAS_OFFSET or host == row[4] + row[1])


class MapLayer(Protocol):
    """One file of a chain: source, named by the file with the data, over below; sizes are bytes."""

    size: int
    filename: str
    below: Source | None

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (start, length, flags, host) of [offset, offset + length), in order; neighbours may be alike."""

    def columns_alone(self, offset: int, length: int) -> Iterator[Columns] | None:
        """Return the rows if no file is below this one; None without a faster way to them than pieces()."""


class Qcow2Layer:
    """One qcow2 file of the chain."""

    def __init__(self, source: Source) -> None:
        assert isinstance(source, Qcow2Source)
        self.below = source.backing
        self.size = source.size
        self.filename = source.data.name
        self._mapping = source.mapping
        # The file system is queried about the host offsets of clusters only where QEMU does so, too: it may be slow.
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

    def columns_alone(self, offset: int, length: int) -> Iterator[Columns] | None:
        return host_columns(self._mapping, offset, length, _ALONE) if self._ranges is None else None


def has_map(source: Source) -> bool:
    """True for an image that was opened to be read; False for a qcow2 disk that can be written, whose map changes."""
    return source.format in FORMATS and (source.format != "qcow2" or isinstance(source, Qcow2Source))


def layers_of(source: Source) -> Iterator[MapLayer]:
    """Yield the files of the chain, the image itself first."""
    below: Source | None = source
    while below is not None:
        if not has_map(below):
            known = " nor a ".join(FORMATS)
            raise UnsupportedImageError(
                f"{below.name}: is neither a {known} image that is open for reading, so there is no map of it"
            )
        layer = FORMATS[below.format].layer(below)
        yield layer
        below = layer.below


def _is_unfilled(source: Qcow2Source) -> bool:
    file = source.file
    return isinstance(file, RawSource) and has_unfilled_clusters(file, source.header, file.stored())


def _columns(layers: list[MapLayer], offset: int, length: int) -> Iterator[RowColumns]:
    """The rows of [offset, offset + length) as the image shows it; two rows at the border of columns may be one."""
    below_size = layers[1].size if len(layers) > 1 else 0
    covered = min(length, max(0, below_size - offset))
    alone = layers[0].columns_alone(offset + covered, length - covered) if covered < length else ()
    rows = _joined_pieces(pieces_of(layers, 0, offset, length if alone is None else covered))
    while some := list(islice(rows, _AT_ONCE)):
        starts, lengths, depths, flags, hosts = map(list, zip(*some, strict=True))
        yield starts, lengths, depths, flags, hosts
    for starts, lengths, flags, hosts in alone or ():
        yield starts, lengths, [0] * len(starts), flags, hosts


def _joined_pieces(pieces: Iterator[Row]) -> Iterator[Row]:
    held: Row | None = None
    for piece in pieces:
        _, length, depth, flags, host = piece
        if held is not None and _continues(held, depth, flags, host):
            held = held[0], held[1] + length, depth, flags, held[4]
        else:
            if held is not None:
                yield held
            held = piece
    if held is not None:
        yield held


def pieces_of(layers: list[MapLayer], depth: int, offset: int, length: int) -> Iterator[Row]:
    """Yield the pieces of [offset, offset + length) as the layers from depth on show it."""
    below_size = layers[depth + 1].size if depth + 1 < len(layers) else 0
    for start, piece_length, flags, host in layers[depth].pieces(offset, length):
        if flags & _DECIDED:
            yield start, piece_length, depth, flags, host
            continue
        if below_size <= start:  # the backing file has ended: the rest reads as zero
            yield start, piece_length, depth, flags | IS_ZERO, host
            continue
        covered = min(below_size - start, piece_length)
        yield from pieces_of(layers, depth + 1, start, covered)
        if covered < piece_length:
            yield start + covered, piece_length - covered, depth, flags | IS_ZERO, host + covered
