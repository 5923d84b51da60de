# SPDX-License-Identifier: MIT
"""The locations of the bytes of a raw image, for the map of a chain: the parts that the file system stores."""

from __future__ import annotations

from array import array
from bisect import bisect_right

from pydiskimg.extents import Kind
from pydiskimg.images.map import STORED, UNFILLED, layers_of, pieces_of
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.regions.region import SourceRegion
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.protocols import Source


class RawLayer:
    """A raw image, or a part of one: every byte is present, and at its own offset.

    For a part of a qcow2 image's disk, the offsets are those of that image's file.
    """

    below: Source | None = None

    def __init__(self, source: Source) -> None:
        self.size = source.size
        self.filename = source.name
        self._start = 0
        self._ranges = StoredRanges(source)
        while isinstance(source, SourceRegion):
            self._start += source.start
            source = source.source
        self._layers = list(layers_of(source)) if isinstance(source, Qcow2Source) else []

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        if self._layers:
            for start, piece_length, _, flags, host in pieces_of(self._layers, 0, self._start + offset, length):
                yield start - self._start, piece_length, flags, host
            return
        for start, piece_length, is_stored in self._ranges.pieces(offset, length):
            yield start, piece_length, STORED if is_stored else UNFILLED, self._start + start

    def columns_alone(self, offset: int, length: int) -> None:  # noqa: ARG002 - pieces() is as short
        return None


class StoredRanges:
    """The extents of a source, read on first use and kept in 8 bytes each.

    A raw file has at most one extent for every block of the file system, and few in practice.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._starts = array("Q")
        self._stored = bytearray()

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (start, length, whether it is stored) for [offset, offset + length); beyond the end nothing is."""
        if not self._stored:
            self._read()
        end = offset + length
        index = bisect_right(self._starts, offset) - 1
        while offset < end:
            stop = min(self._starts[index + 1], end) if index + 1 < len(self._starts) else end
            yield offset, stop - offset, bool(self._stored[index])
            offset, index = stop, index + 1

    def _read(self) -> None:
        for extent in self._source.extents():
            self._starts.append(extent.start)
            self._stored.append(extent.kind is Kind.DATA)
        self._starts.append(self._source.size)
        self._stored.append(False)
