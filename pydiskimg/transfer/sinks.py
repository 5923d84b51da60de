# SPDX-License-Identifier: MIT
"""The destinations of a stream's chunks: a disk, written by several threads, or a pipe, written in order."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol, runtime_checkable

from pydiskimg.disks.deferred_head import DeferredHead
from pydiskimg.errors import StorageError
from pydiskimg.images.qcow2.stream.reader import Chunk
from pydiskimg.protocols import Disk
from pydiskimg.transfer.copy import FREE_UNIT, ZERO_UNIT
from pydiskimg.transfer.pieces import ZERO_CHUNK_SIZE, ZeroRuns
from pydiskimg.transfer.pipe import PipeWriter


@runtime_checkable
class CanGrow(Protocol):
    """A Disk that can be made larger."""

    def grow(self, size: int) -> None:
        """Make the disk size bytes large; the new part reads as zero. No other method is called meanwhile."""


class Sink(Protocol):
    """The destination of a stream. data() and zeros() run on several threads, everything else on one.

    zeros_at_once is the largest number of bytes for zeros(): for a disk that is already zero, all of it.
    writes_zeros is True if each zero costs as much as other data.
    """

    zeros_at_once: int
    writes_zeros: bool

    def room_for(self, end: int) -> None:
        """Ensure that bytes up to end can be written. Raises StorageError."""

    def data(self, chunk: Chunk) -> None: ...

    def zeros(self, start: int, length: int) -> None: ...

    def in_order(self, item: Chunk | tuple[int, int]) -> None:
        """Called for each chunk, and each (start, length) of zeros, in their order, after data() or zeros()."""

    def finish(self) -> None:
        """Make all of it durable and valid: the stream has ended correctly."""


class DiskSink:
    """Writes to a disk: its first MiB last, unless the disk reads as zero and so is new; commits a DeferredHead."""

    def __init__(self, disk: Disk, source_name: str, *, unit: int | None, grow: bool) -> None:
        self._disk = disk
        self._source_name = source_name
        self._may_grow = grow
        self.writes_zeros = not (disk.reads_as_zero or disk.frees_zeros)
        self.zeros_at_once = sys.maxsize if disk.reads_as_zero else ZERO_CHUNK_SIZE
        self._gate = _Gate()
        self._unit = unit or (FREE_UNIT if disk.reads_as_zero else ZERO_UNIT)
        self._zero_runs = ZeroRuns(self._unit)
        begun = disk.reads_as_zero or isinstance(disk, DeferredHead)
        self._target = disk if begun else DeferredHead(disk, keep_end=True)

    def room_for(self, end: int) -> None:
        disk = self._disk
        if end <= disk.size:
            return
        if not self._may_grow or not isinstance(disk, CanGrow):
            raise self._full()
        with self._gate.closed():
            disk.grow(end)

    def data(self, chunk: Chunk) -> None:
        ranges = fill_units(chunk, self._unit)
        with self._gate.passed():
            at = 0
            for start, length in ranges:
                self.zeros(chunk.start + at, start - at)
                at = start + length
                for first, last, is_zero in self._zero_runs(chunk.buffer[start:at]):
                    if is_zero:
                        self.zeros(chunk.start + start + first, last - first)
                    else:
                        self._write(chunk.start + start + first, chunk.buffer[start + first : start + last])
            self.zeros(chunk.start + at, chunk.length - at)

    def zeros(self, start: int, length: int) -> None:
        length = min(length, self._disk.size - start)
        if length > 0 and not self._disk.reads_as_zero:
            self._target.zero(start, length)

    def in_order(self, item: Chunk | tuple[int, int]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        if isinstance(self._target, DeferredHead):
            self._target.commit()
        else:
            self._target.flush()

    def _write(self, offset: int, data: memoryview) -> None:
        """Write data, but for padding, which must be zero, beyond the end of the disk."""
        inside = max(0, self._disk.size - offset)
        if any(data[inside:]):
            raise self._full()
        self._target.write(offset, data[:inside])

    def _full(self) -> StorageError:
        return StorageError(
            f"{self._disk.name}: is full after {self._disk.size} bytes, and {self._source_name} has more; the written "
            "data are not complete",
            errno=errno.ENOSPC,
            filename=self._disk.name,
            tells_what_is_left=True,
        )


class PipeSink:
    """Writes raw bytes, zeros included, into a pipe."""

    zeros_at_once = ZERO_CHUNK_SIZE
    writes_zeros = True

    def __init__(self, pipe: PipeWriter) -> None:
        self._pipe = pipe

    def room_for(self, end: int) -> None:
        """A pipe has no size."""

    def data(self, chunk: Chunk) -> None:
        chunk.extents = fill_units(chunk, ZERO_UNIT)

    def zeros(self, start: int, length: int) -> None:
        """They are written in their order."""

    def in_order(self, item: Chunk | tuple[int, int]) -> None:
        if not isinstance(item, Chunk):
            self._pipe.zeros(item[1])
            return
        at = 0
        for start, length in item.extents:
            self._pipe.zeros(start - at)
            at = start + length
            self._pipe.write(item.buffer[start:at])
        self._pipe.zeros(item.length - at)

    def finish(self) -> None:
        self._pipe.flush()


def fill_units(chunk: Chunk, unit: int) -> list[tuple[int, int]]:
    """Widen the chunk's extents to whole units (bytes), with zeros for unstored bytes; return the widened extents.

    They are ascending and do not touch; the last one ends at or before the end of the chunk.
    """
    edges = [(0, 0), *chunk.extents, (chunk.length, 0)]
    for (start, length), (next_start, _) in pairwise(edges):
        hole = start + length
        end = min(hole + -hole % unit, next_start)
        resumed = max(next_start - next_start % unit, end)
        chunk.buffer[hole:end] = bytes(end - hole)
        chunk.buffer[resumed:next_start] = bytes(next_start - resumed)
    widened: list[tuple[int, int]] = []
    for start, length in chunk.extents:
        first = start - start % unit
        last = min(start + length + -(start + length) % unit, chunk.length)
        if widened and first <= sum(widened[-1]):
            first = widened.pop()[0]
        widened.append((first, last - first))
    return widened


class _Gate:
    """Lets several threads pass at a time, or one that has closed it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_closed = False

    @contextmanager
    def passed(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._is_closed = False
                self._changed.notify_all()
