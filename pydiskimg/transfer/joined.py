# SPDX-License-Identifier: MIT
"""Several Sources, one after the other, as one.

sources  | a      |pad| b       |pad| c    |pad|       each is continued with zeros to a whole sector
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import ExitStack

from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.protocols import ImageSource, check_buffer
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydiskimg.protocols import FileRange, WritableBuffer

_SECTOR = 512


class JoinedSource(ImageSource):
    """The bytes of several sources one after the other; close() closes the sources.

    A source whose size is not a multiple of 512 bytes is continued with zeros to the next sector, as by QEMU.

    >>> from pydiskimg import JoinedSource, open_image
    >>> with JoinedSource([open_image("disk.qcow2"), open_image("disk.raw")]) as source:
    ...     source.size
    134217728
    """

    name: str
    size: int

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        self.name = " + ".join(source.name for source in sources)
        self._sources = sources
        self._starts: list[int] = []
        self.size = 0
        for source in sources:
            self._starts.append(self.size)
            self.size += source.size + -source.size % _SECTOR

    def extents(self) -> Iterator[Extent]:
        return merged(self._extents(1))

    def coarse_extents(self, unit: int) -> Iterator[Extent]:
        return merged(self._extents(unit))

    def _extents(self, unit: int) -> Iterator[Extent]:
        position = 0
        for start, source in zip(self._starts, self._sources, strict=True):
            yield Extent(position, start - position, Kind.HOLE)
            # A unit of the source is not one of the whole if its start is not a multiple.
            for extent in source.extents() if start % unit else source.coarse_extents(unit):
                yield Extent(start + extent.start, extent.length, extent.kind)
            position = start + source.size
        yield Extent(position, self.size - position, Kind.HOLE)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_buffer(self, offset, buffer)
        view = memoryview(buffer)
        while view:
            index = bisect_right(self._starts, offset) - 1
            start, source = self._starts[index], self._sources[index]
            stop = self._starts[index + 1] if index + 1 < len(self._starts) else self.size
            part = view[: stop - offset]
            stored = max(0, min(len(part), start + source.size - offset))
            if stored:
                source.read_into(offset - start, part[:stored])
            part[stored:] = bytes(len(part) - stored)
            offset, view = offset + len(part), view[len(part) :]

    def file_ranges(self, offset: int, length: int) -> list[FileRange] | None:
        index = bisect_right(self._starts, offset) - 1
        start, source = self._starts[index], self._sources[index]
        return source.file_ranges(offset - start, length) if offset - start + length <= source.size else None

    def files(self) -> Iterator[str]:
        for source in self._sources:
            yield from source.files()

    @property
    def is_compressed(self) -> bool:
        return any(source.is_compressed for source in self._sources)

    @property
    def leaves_out_zeros(self) -> bool:
        return all(source.leaves_out_zeros for source in self._sources)

    def close(self) -> None:
        """Close all sources."""
        with ExitStack() as stack:
            for source in self._sources:
                stack.callback(source.close)
