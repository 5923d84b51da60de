# SPDX-License-Identifier: MIT
"""Read all readable parts of a damaged Source: the rest reads as zero.

read      |  2 MiB: fails                 |
halves    |  fails        |  read         |
          | read  | fails |                    down to a sector, or a cluster where the image is damaged
"""

from __future__ import annotations

import errno
import threading

from pydiskimg.errors import DiskImageError, InvalidImageError, StorageError
from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.images.chain import backing_sources
from pydiskimg.images.map import has_map, map_rows
from pydiskimg.images.qcow2.host_offsets import IS_ZERO
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.images.qcow2.runs import COMPRESSED
from pydiskimg.protocols import ImageSource
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from pydiskimg.protocols import WritableBuffer

    Report: TypeAlias = Callable[[int, int, DiskImageError], None]

_SECTOR = 512
_SPAN = 1 << 30  # the unit that is given up in an image of another format if its extents cannot be determined


class SalvagedSource(ImageSource):
    """A source whose unreadable sectors read as zero, for copying a damaged image or disk; close() closes the source.

    report(offset, length, error) is called for each run of such sectors (bytes), from one thread at a time, and may be
    called again for one that is read again.

    >>> from pydiskimg import MemoryDisk, SalvagedSource, copy, open_image
    >>> lost = []
    >>> with SalvagedSource(open_image("disk.qcow2"), lambda *run: lost.append(run)) as source:
    ...     copied = copy(source, MemoryDisk(source.size))
    >>> lost
    []
    """

    name: str
    size: int

    def __init__(self, source: ImageSource, report: Report) -> None:
        self.name = source.name
        self.size = source.size
        self._source = source
        self._report = report
        self._lock = threading.RLock()
        for layer in (source, *backing_sources(source)):
            if isinstance(layer, Qcow2Source):
                layer.mapping.forgive(self._lose)

    def extents(self) -> Iterator[Extent]:
        """Yield the extents as far as they are known: DATA where they are not, and a HOLE for unmapped parts."""
        return merged(self._extents())

    def _extents(self) -> Iterator[Extent]:
        position = 0
        while position < self.size:
            try:
                for extent in self._told(position):
                    yield extent
                    position = extent.end
            except DiskImageError as error:
                _require_open(error)
                yield (extent := self._untold(position, error))
                position = extent.end

    def _told(self, position: int) -> Iterator[Extent]:
        """The extents from position on; in images they can begin anywhere."""
        if not has_map(self._source):
            yield from self._source.extents() if not position else ()
            return
        for start, length, _, flags, _ in map_rows(self._source, position, self.size - position)[1]:
            yield Extent(start, length, Kind.ZERO if flags & IS_ZERO else Kind.DATA)

    def _untold(self, position: int, error: DiskImageError) -> Extent:
        """The bytes from position on if the tables of the image cannot be read: all that one of them maps."""
        source = self._source
        if not isinstance(source, Qcow2Source):
            return Extent(position, min(_SPAN, self.size - position), Kind.DATA)
        span = source.header.l2_span
        length = min(span - position % span, self.size - position)
        try:
            for _ in source.mapping.tables(position, length):
                pass
        except DiskImageError:  # its own table: each cluster would fail
            self._lose(position, length, error)
            return Extent(position, length, Kind.HOLE)
        return Extent(position, length, Kind.DATA)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        """Fill the whole buffer; unreadable bytes are zero. Raises ValueError outside of the source."""
        with memoryview(buffer) as view:
            first: DiskImageError | None = None
            start = end = offset  # the most recent run of lost bytes
            for at, length, error in self._failures(offset, view):
                if first is not None and at > end:
                    self._lose(start, end - start, first)
                    first = None
                if first is None:
                    first, start = error, at
                end = at + length
            if first is not None:
                self._lose(start, end - start, first)

    def _failures(self, offset: int, view: memoryview) -> Iterator[tuple[int, int, DiskImageError]]:
        """Fill view; yield (offset, length, error) of the unreadable bytes, which are zero, ascending."""
        try:
            self._source.read_into(offset, view)
        except DiskImageError as error:
            _require_open(error)
            grain = self._grain(offset, len(view), error)
            if offset // grain == (offset + len(view) - 1) // grain:
                view[:] = bytes(len(view))
                yield offset, len(view), error
                return
            middle = max(offset + 1, offset + len(view) // 2)
            middle = middle - middle % grain if middle - middle % grain > offset else middle + -middle % grain
            yield from self._failures(offset, view[: middle - offset])
            yield from self._failures(middle, view[middle - offset :])

    def _grain(self, offset: int, length: int, error: DiskImageError) -> int:
        """The unit that is lost as a whole after a failed read: a compressed cluster, or a sector."""
        source = self._source
        if not isinstance(source, Qcow2Source) or not isinstance(error, InvalidImageError):
            return _SECTOR
        cluster_size = source.cluster_size
        if length > cluster_size:
            return max(_SECTOR, cluster_size)
        try:
            kinds = {run.kind for run in source.mapping.coarse_runs(offset, length)}
        except DiskImageError:
            return cluster_size
        return cluster_size if kinds == {COMPRESSED} else _SECTOR

    def _lose(self, offset: int, length: int, error: DiskImageError) -> None:
        with self._lock:
            self._report(offset, length, error)

    def files(self) -> Iterator[str]:
        return self._source.files()

    @property
    def is_compressed(self) -> bool:
        try:
            return self._source.is_compressed
        except DiskImageError:
            return True

    @property
    def leaves_out_zeros(self) -> bool:
        return self._source.leaves_out_zeros

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _require_open(error: DiskImageError) -> None:
    """Raise error again if it says that the source is closed, of which nothing can be salvaged."""
    if isinstance(error, StorageError) and error.errno == errno.EBADF:
        raise error
