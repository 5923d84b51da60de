# SPDX-License-Identifier: MIT
"""The copy engine: extents of a Source become bytes of a Disk.

    source   |  DATA  |   HOLE   | ZERO |   DATA   |
                 |         |        |        |
    workers   copy      zero     zero     copy        each takes the next piece when it is free
                 v         v        v        v
    disk     [================================================]  flush, then read back where asked for

It knows the protocols only: which file, device or format lies behind them is not seen here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from mmap import mmap

from pydiskimg.errors import DoesNotFitError, InvalidImageError, VerificationError, storage_error
from pydiskimg.extents import Extent, Kind
from pydiskimg.protocols import Disk, Progress, Source
from pydiskimg.units import GIB, KIB, MIB, format_bytes

# A multiple of every qcow2 cluster size, so that no cluster is decompressed twice.
CHUNK_SIZE = 2 * MIB
# Zeroing is one call to the kernel; a bound keeps progress moving and signals answered.
ZERO_CHUNK_SIZE = GIB
# Zeros inside DATA are looked for in units of this size: a cluster of most images, and enough for one command.
ZERO_UNIT = 64 * KIB
# Beyond this, threads wait for each other and for the device rather than work, and memory grows.
MAX_WORKERS = 8

_ZEROS = bytearray(ZERO_UNIT)


@dataclass(frozen=True, slots=True)
class Copied:
    """What copy() did, in bytes: total = source.size = written + zeroed + skipped (already known to be zero)."""

    total: int
    written: int
    zeroed: int
    skipped: int


def copy(
    source: Source,
    disk: Disk,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    verify: bool = False,
) -> Copied:
    """Make the first source.size bytes of disk equal to source, durably.

    What is not data becomes zero on the disk: by the disk's cheapest way, or not at all where the disk is known
    to read as zero. Runs of zeros inside data are treated so too. workers is the number of threads (None: by the
    number of CPUs; never more than 8); memory is bounded by workers * 2 MiB plus what the source holds. progress
    counts the bytes of source, of every kind. verify reads everything back, from the device where the system
    allows it, and compares.

    Raises DoesNotFitError before the first byte when the source is larger than the disk; otherwise the first
    error of any worker, after all have stopped: the disk is then in an undefined state. VerificationError says
    where the bytes differ.
    """
    check_fits(source, disk)
    count = min(MAX_WORKERS, workers or max(2, os.cpu_count() or 1))
    total = source.size * (2 if verify else 1)
    copying = _Copying(source, disk)
    meter = _Meter(progress, total)
    _Crew(_pieces(source), copying.piece, meter).run(count)
    disk.flush()
    if verify:
        disk.drop_cache()
        _Crew(_pieces(source), _Verifying(source, disk).piece, meter).run(count)
    return copying.result()


def check_fits(source: Source, disk: Disk) -> None:
    """Raise DoesNotFitError, with both sizes, when source is larger than disk; call it before the first byte."""
    if source.size > disk.size:
        raise DoesNotFitError(
            f"{disk.name}: the image {source.name} needs {format_bytes(source.size)}, "
            f"the disk has {format_bytes(disk.size)}; nothing was written",
            needed=source.size,
            available=disk.size,
        )


class _Meter:
    """Progress across phases; its caller holds a lock."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def advance(self, length: int) -> None:
        self._done += length
        if self._progress is not None:
            self._progress(self._done, self._total)


def _pieces(source: Source) -> Iterator[Extent]:
    """Cut the extents at multiples of the chunk size of their kind."""
    for extent in source.extents():
        size = CHUNK_SIZE if extent.kind is Kind.DATA else ZERO_CHUNK_SIZE
        start = extent.start
        while start < extent.end:
            end = min(extent.end, (start // size + 1) * size)
            yield Extent(start, end - start, extent.kind)
            start = end


class _Copying:
    def __init__(self, source: Source, disk: Disk) -> None:
        self._source = source
        self._disk = disk
        self._lock = threading.Lock()
        self._written = 0
        self._zeroed = 0
        self._skipped = 0

    def piece(self, piece: Extent, buffer: memoryview) -> None:
        if piece.kind is not Kind.DATA:
            self._zero(piece.start, piece.length)
            return
        with buffer[: piece.length] as view:
            self._source.read_into(piece.start, view)
            for start, end, is_zero in _runs(view):
                if is_zero:
                    self._zero(piece.start + start, end - start)
                else:
                    self._disk.write(piece.start + start, view[start:end])
                    with self._lock:
                        self._written += end - start

    def _zero(self, offset: int, length: int) -> None:
        if self._disk.reads_as_zero:
            with self._lock:
                self._skipped += length
            return
        self._disk.zero(offset, length)
        with self._lock:
            self._zeroed += length

    def result(self) -> Copied:
        done = self._written + self._zeroed + self._skipped
        if done != self._source.size:
            raise InvalidImageError(
                f"{self._source.name}: its extents cover {done} bytes of {self._source.size}; nothing can be relied on"
            )
        return Copied(self._source.size, self._written, self._zeroed, self._skipped)


class _Verifying:
    def __init__(self, source: Source, disk: Disk) -> None:
        self._source = source
        self._disk = disk

    def piece(self, piece: Extent, buffer: memoryview) -> None:
        for start in range(piece.start, piece.end, CHUNK_SIZE):
            length = min(CHUNK_SIZE, piece.end - start)
            found = bytearray(length)
            self._disk.read_into(start, found)
            with buffer[:length] as view:
                if piece.kind is Kind.DATA:
                    self._source.read_into(start, view)
                else:
                    view[:] = bytes(length)
                if found != view:
                    self._differs(start, found, view)

    def _differs(self, start: int, found: bytearray, expected: memoryview) -> None:
        index = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        raise VerificationError(
            f"{self._disk.name}: reading back byte {start + index} gave {found[index]:#04x}, "
            f"{self._source.name} has {expected[index]:#04x} there; the device did not keep what was written",
            offset=start + index,
        )


def _runs(view: memoryview) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, end, is_zero) of the runs of zero and other units in view.

    A bytearray on the left compares by memcmp, which leaves at the first byte that differs: looking costs
    next to nothing where there is data.
    """
    start = 0
    was_zero: bool | None = None
    for position in range(0, len(view), ZERO_UNIT):
        unit = view[position : position + ZERO_UNIT]
        is_zero = (_ZEROS if len(unit) == ZERO_UNIT else _ZEROS[: len(unit)]) == unit
        if was_zero is not None and is_zero is not was_zero:
            yield start, position, was_zero
            start = position
        was_zero = is_zero
    if was_zero is not None:
        yield start, len(view), was_zero


class _Crew:
    """Threads that take piece after piece until all are done or one has failed."""

    def __init__(self, pieces: Iterator[Extent], work: Callable[[Extent, memoryview], None], meter: _Meter) -> None:
        self._pieces = pieces
        self._work = work
        self._meter = meter
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []

    def run(self, count: int) -> None:
        """Return when all pieces are done; raise the first failure, after every thread has stopped."""
        threads = [threading.Thread(target=self._worker, name=f"copy-{i}", daemon=True) for i in range(count)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:  # a signal in the caller's thread: the workers end with their piece
            self._fail(error)
            _join_whatever_comes(threads)
            raise
        if self._failures:
            raise self._failures[0]

    def _worker(self) -> None:
        try:
            buffer = _page_aligned_buffer()
            while (piece := self._next()) is not None:
                self._work(piece, buffer)
                with self._lock:
                    self._meter.advance(piece.length)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._fail(error)

    def _next(self) -> Extent | None:
        with self._lock:
            return None if self._failures else next(self._pieces, None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failures.append(error)


def _join_whatever_comes(threads: list[threading.Thread]) -> None:
    """Wait for every thread that was started: none may write once the caller has closed the disk.

    A further signal is dropped; the first is on its way to the caller.
    """
    for thread in threads:
        while thread.ident is not None and thread.is_alive():
            with suppress(BaseException):
                thread.join()


def _page_aligned_buffer() -> memoryview:
    """Return a buffer for one chunk, at a page boundary, as direct I/O wants it."""
    try:
        return memoryview(mmap(-1, CHUNK_SIZE))
    except OSError as error:
        raise storage_error(error, "copying", f"no buffer of {CHUNK_SIZE} bytes is to be had") from error
