# SPDX-License-Identifier: MIT
"""The copy engine: write the extents of a Source as bytes of a Disk.

    source   |  DATA  |   HOLE   | ZERO |   DATA   |
                 |         |        |        |
    workers   copy      zero     zero     copy        each takes the next piece when it is free
                 v         v        v        v
    disk     [================================================]  flush, then read back if requested

It uses only the protocols, independent of the file, device or format that implements them.
"""

from __future__ import annotations

import threading

from pydiskimg.disks.fits import check_fits
from pydiskimg.errors import InUseError
from pydiskimg.extents import Kind
from pydiskimg.regions.claims import require_unclaimed
from pydiskimg.regions.overlap import distance
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.meter import Meter
from pydiskimg.transfer.pieces import CHUNK_SIZE, MIN_UNIT, WHOLE, ZERO_CHUNK_SIZE, ZeroRuns, batches, pieces
from pydiskimg.transfer.splice import Splicing
from pydiskimg.transfer.workers import work_on, worker_count
from pydiskimg.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydiskimg.extents import Extent
    from pydiskimg.protocols import Disk, Progress, Source
    from pydiskimg.transfer.pieces import PieceBatch
    from pydiskimg.transfer.share import Sharing

# If skipping is free, zeros are searched page by page; otherwise a run of them must be worth a command.
FREE_UNIT = 4 * KIB
ZERO_UNIT = 64 * KIB
# Fewer leave the device or the processors idle: a worker in a system call needs no processor. When reading includes
# decompressing, more than 4 compete for the processor (measured with two: docs/adr/0008).
MIN_WORKERS = 6
MIN_WORKERS_DECOMPRESSING = 4
# Writes to a file take turns, and more threads wait for the interpreter.
MIN_WORKERS_TO_FILE = 3


class Copied:
    """What copy() did, in bytes: total is the size of the source, and equals written + zeroed + skipped.

    skipped bytes were known to be zero on the disk already.

    >>> from pydiskimg import MemoryDisk, copy
    >>> copied = copy(MemoryDisk(1 << 20), MemoryDisk(1 << 20))
    >>> copied.written, copied.zeroed, copied.skipped
    (0, 0, 1048576)
    """

    __slots__ = ("skipped", "total", "written", "zeroed")

    def __init__(self, total: int, written: int, zeroed: int, skipped: int) -> None:
        self.total = total
        self.written = written
        self.zeroed = zeroed
        self.skipped = skipped

    def __repr__(self) -> str:
        return f"Copied(total={self.total}, written={self.written}, zeroed={self.zeroed}, skipped={self.skipped})"


def copy(
    source: Source,
    disk: Disk,
    *,
    unit: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    verify: bool = False,
    sparse: bool = True,
    share: bool = False,
) -> Copied:
    """Make the first source.size bytes of disk equal to source; durable on return.

    Holes and zeros of the source become zero on the disk in the cheapest way that the disk has, or are skipped where it
    is known to read as zero. Runs of zeros inside data are treated alike; where data moves from a file to a device
    without being read (ADR 0023), only runs of 256 KiB or more are certain to be found. sparse=False writes
    every byte; a qcow2 image leaves holes for zeros at the ends of new clusters unless its keep_zeros() was called.

    share lets the disk have the blocks of the source's files instead of a copy, where both are in one file system that
    can do that (XFS, btrfs); zeros are not searched in data that is shared. Without sparse it has no effect.

    unit is a number of bytes, a power of two from 512 to 2 MiB: each write begins and ends at a multiple of it, or at
    the end of the source. Pass the disk's own unit for an image made of clusters. None means 4 KiB where the disk reads
    as zero and 64 KiB elsewhere. workers is the number of threads, at most 8; None means one for each processor, and at
    least 6 (4 where the source is compressed, 3 where disk is a file). Memory is bounded by workers * 2 MiB and what
    the source needs.

    progress counts the bytes that are written and, with verify, those that are read back; a range that is zeroed
    without being written does not count. verify reads everything back, from the device where the system allows it, and
    compares it with the source.

    Raises ValueError for a wrong unit or number of workers, DoesNotFitError when the source is larger than the disk,
    and InUseError when both are overlapping regions of one disk, all before the first write. Any later error is the
    first one of a worker, raised after all workers have stopped; the contents of the disk are then undefined.
    VerificationError has the offset of the first byte that differs.

    >>> from pydiskimg import copy, new_image, open_image
    >>> with open_image("disk.qcow2") as source, new_image("copy.raw", source.size) as disk:
    ...     copied = copy(source, disk, verify=True)
    >>> copied.total == copied.written + copied.zeroed + copied.skipped
    True
    """
    unit = _checked_unit(unit, disk)
    require_unclaimed(disk)
    check_fits(source, disk)
    _refuse_shifted(source, disk)
    count = worker_count(workers, least=_least_workers(source, disk))
    spliced = Splicing(source, disk)
    copying = (_Copying if sparse else _Filling)(source, disk, unit, spliced)
    if share:
        from pydiskimg.transfer.share import Sharing  # imported here: most copies share nothing

        copying.shared = Sharing(source, disk)
    if verify:
        from pydiskimg.transfer.verify import read_back, to_read_back  # imported here: most copies are not verified
    meter = Meter(progress, later=to_read_back(source, disk, unit) if verify else ())
    writes_zeros = not (sparse and (disk.reads_as_zero or disk.frees_zeros))
    meter.begin(pieces(source, unit, zero_size=WHOLE), counts_zeros=writes_zeros)
    zero_size = CHUNK_SIZE if not sparse else WHOLE if disk.reads_as_zero else ZERO_CHUNK_SIZE
    try:
        found = batches(pieces(source, unit, zero_size=zero_size), skips_zeros=sparse and disk.reads_as_zero)
        work_on(found, copying.batch, meter=meter, workers=count)
    finally:
        spliced.close()
    disk.flush()
    if verify:
        disk.drop_cache()
        read_back(source, disk, unit=unit, workers=count, meter=meter)
    return copying.result()


def _refuse_shifted(source: Source, disk: Disk) -> None:
    """Raise InUseError if bytes of the source would be overwritten before they are read."""
    between = distance(source, disk)
    if between and abs(between) < source.size:
        raise InUseError(
            f"{disk.name}: overlaps the source, {source.name}, whose bytes would be lost before they are read; copy "
            "them by way of another file",
            errno=None,
            filename=disk.name,
        )


def _least_workers(source: Source, disk: Disk) -> int:
    if source.is_compressed:
        return MIN_WORKERS_DECOMPRESSING
    end = disk.size - disk.size % FREE_UNIT
    takes_pages = disk.file_location(end, 0) is not None  # a device, written directly
    return MIN_WORKERS if takes_pages else MIN_WORKERS_TO_FILE


def _checked_unit(unit: int | None, disk: Disk) -> int:
    if unit is None:
        return FREE_UNIT if disk.reads_as_zero else ZERO_UNIT
    if not MIN_UNIT <= unit <= CHUNK_SIZE or unit & (unit - 1):
        raise ValueError(f"unit {unit} is not a power of two from {MIN_UNIT} to {CHUNK_SIZE}")
    return unit


class _Copying:
    def __init__(self, source: Source, disk: Disk, unit: int, spliced: Splicing) -> None:
        self._source = source
        self._disk = disk
        self._spliced = spliced
        self.shared: Sharing | None = None
        self._zero_runs = ZeroRuns(unit)
        self._lock = threading.Lock()
        self._written = 0
        self._zeroed = 0
        self._skipped = 0

    def batch(self, batch: PieceBatch, buffer: memoryview) -> None:
        """Copy the data and zero the rest; buffer has room for all data."""
        zeros = [(piece.start, piece.length) for piece in batch.zeros]
        ranges = [(piece.start, piece.length) for piece in batch.data if not self._moved(piece)]
        to_write: list[tuple[int, int, int]] = []
        with buffer[: sum(length for _, length in ranges)] as view:
            self._source.read_ranges(ranges, view)
            for offset, start, end, is_zero in _located(self._zero_runs(view), ranges):
                if is_zero:
                    zeros.append((offset, end - start))
                else:
                    to_write.append((offset, start, end))
            self._disk.write_ranges(to_write, view)
        self._zero(zeros)
        zeroed = sum(length for _, length in zeros)
        with self._lock:
            self._written += batch.length - zeroed
            if self._disk.reads_as_zero:
                self._skipped += zeroed
            else:
                self._zeroed += zeroed

    def _moved(self, piece: Extent) -> bool:
        """Share or splice a piece of data; False if it must be read and written."""
        return (self.shared is not None and self.shared.copy(piece)) or self._spliced.copy(piece)

    def _zero(self, ranges: list[tuple[int, int]]) -> None:
        if not self._disk.reads_as_zero:
            for offset, length in ranges:
                self._disk.zero(offset, length)

    def result(self) -> Copied:
        return Copied(self._source.size, self._written, self._zeroed, self._skipped)


class _Filling(_Copying):
    """Writes every byte, including known zeros."""

    def batch(self, batch: PieceBatch, buffer: memoryview) -> None:
        for piece in (*batch.data, *batch.zeros):
            with buffer[: piece.length] as view:
                if piece.kind is Kind.DATA:
                    self._source.read_into(piece.start, view)
                else:
                    view[:] = bytes(piece.length)
                self._disk.write(piece.start, view)
        with self._lock:
            self._written += batch.length


def _located(
    runs: Iterable[tuple[int, int, bool]], ranges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, int, bool]]:
    """Cut runs (start, end, is_zero) of the bytes of ranges (offset, length) where these end; yield each's offset, too.

    The bytes of the ranges follow each other.
    """
    left = iter(ranges)
    ahead = after = 0  # the offset of a byte less its place in the bytes; where those of the range end
    start = 0
    for _, end, is_zero in runs:
        while start < end:
            if start == after:
                offset, length = next(left)
                ahead, after = offset - start, start + length
            stop = min(end, after)
            yield start + ahead, start, stop, is_zero
            start = stop
