# SPDX-License-Identifier: MIT
"""transfer.copy() over memory: what is not data is zero, first error wins, memory and progress."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.disks.file import FileDisk
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DoesNotFitError, InvalidImageError, StorageError, VerificationError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.create import new_image
from pydiskimg.images.qcow2.write.disk import Qcow2Disk
from pydiskimg.protocols import Buffer, Source, WritableBuffer
from pydiskimg.transfer import workers
from pydiskimg.transfer.copy import FREE_UNIT, ZERO_UNIT, copy
from pydiskimg.transfer.pieces import CHUNK_SIZE, ZeroRuns, pieces
from pydiskimg.units import MIB


class ListSource(Source):
    """A Source made of extents; DATA holds a pattern that depends on the offset."""

    size: int
    name = "list"

    def __init__(self, lengths: list[tuple[Kind, int]], *, zero_data: bool = False) -> None:
        self.all = []
        start = 0
        for kind, length in lengths:
            self.all.append(Extent(start, length, kind))
            start += length
        self.size = start
        self.image = bytearray(start)
        for extent in self.all:
            if extent.kind is Kind.DATA and not zero_data:
                pattern = bytes(1 + (extent.start + i) % 251 for i in range(min(extent.length, 251)))
                self.image[extent.start : extent.end] = (pattern * (extent.length // len(pattern) + 1))[: extent.length]

    def extents(self) -> Iterator[Extent]:
        return iter(self.all)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        buffer[:] = self.image[offset : offset + len(buffer)]


KINDS = st.sampled_from([Kind.DATA, Kind.ZERO, Kind.HOLE])
UNITS = [512, 4096, 65536, 2 << 20]


class Clusters(MemoryDisk):
    """A disk made of clusters of cluster_size bytes, which takes only whole ones; the last ends with the image."""

    def __init__(self, size: int, cluster_size: int, *, fill: int = 0xFF) -> None:
        super().__init__(size, fill=fill)
        self.cluster_size = cluster_size
        self.written: set[int] = set()

    def write(self, offset: int, data: Buffer) -> None:
        self._check(offset, len(data))
        clusters = range(offset // self.cluster_size, -(-(offset + len(data)) // self.cluster_size))
        assert self.written.isdisjoint(clusters), "a cluster was written twice"
        self.written.update(clusters)
        super().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)
        super().zero(offset, length)

    def _check(self, offset: int, length: int) -> None:
        assert length > 0
        assert offset % self.cluster_size == 0
        assert (offset + length) % self.cluster_size == 0 or offset + length == self.size


@given(
    st.lists(st.tuples(KINDS, st.integers(1, 300_000)), max_size=6),
    st.integers(0, 5000),
    st.sampled_from([0, 0xFF]),
    st.integers(1, 4),
)
def test_the_disk_reads_as_the_image(lengths: list[tuple[Kind, int]], extra: int, fill: int, workers: int) -> None:
    source = ListSource(lengths)
    disk = MemoryDisk(source.size + extra, fill=fill)
    copied = copy(source, disk, workers=workers, verify=True)
    assert disk.data[: source.size] == source.image
    assert disk.data[source.size :] == bytes([fill]) * extra
    assert copied.written + copied.zeroed + copied.skipped == copied.total == source.size


@given(
    st.lists(st.tuples(KINDS, st.integers(1, 300_000) | st.integers(1, 40).map(lambda n: n * 512)), max_size=12),
    st.sampled_from(UNITS),
    st.booleans(),
    st.sampled_from([0, 0xFF]),
)
def test_every_write_is_of_whole_units(lengths: list[tuple[Kind, int]], unit: int, zero_data: bool, fill: int) -> None:
    source = ListSource(lengths, zero_data=zero_data)
    disk = Clusters(source.size, unit, fill=fill)
    copied = copy(source, disk, unit=unit, workers=2, verify=True)
    assert disk.data == source.image
    with_data = {
        number
        for extent in source.all
        if extent.kind is Kind.DATA and not zero_data
        for number in range(extent.start // unit, (extent.end - 1) // unit + 1)
    }
    assert disk.written == with_data
    assert copied.written == disk.bytes_written
    assert copied.written + copied.zeroed + copied.skipped == copied.total == source.size


@given(st.lists(st.tuples(KINDS, st.integers(1, 5_000_000)), max_size=12), st.sampled_from(UNITS))
def test_pieces_cover_the_source_in_order(lengths: list[tuple[Kind, int]], unit: int) -> None:
    source = ListSource([])
    source.all, start = [], 0
    for kind, length in lengths:
        source.all.append(Extent(start, length, kind))
        start += length
    source.size = start
    position = 0
    for piece in pieces(source, unit):
        assert piece.start == position
        assert piece.length > 0
        assert piece.start % unit == 0
        if piece.kind is Kind.DATA:
            assert piece.start // CHUNK_SIZE == (piece.end - 1) // CHUNK_SIZE
        position = piece.end
    assert position == source.size


def test_small_extents_of_one_chunk_are_one_piece() -> None:
    source = ListSource([(Kind.HOLE, 512), (Kind.DATA, 512)] * (CHUNK_SIZE // 1024 * 3))
    found = list(pieces(source, 1024))
    assert [(piece.start, piece.length) for piece in found] == [(n * CHUNK_SIZE, CHUNK_SIZE) for n in range(3)]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0, 1, 511, 256, 100, None])), max_size=20),
    st.integers(0, 511),
)
def test_runs_of_zeros(units: list[tuple[int, int | None]], cut: int) -> None:
    """Units that are zero, or have one byte that is not, at a place that samples may miss."""
    data = bytearray()
    for count, place in units:
        for _ in range(count):
            unit = bytearray(512)
            if place is not None:
                unit[place] = 7
            data += unit
    del data[len(data) - min(cut, len(data)) :]
    position = 0
    was_zero = None
    for start, end, is_zero in ZeroRuns(512)(memoryview(data)):
        assert start == position < end
        assert is_zero is not was_zero
        for at in range(start, end, 512):
            assert any(data[at : at + 512]) is not is_zero
        position, was_zero = end, is_zero
    assert position == len(data)


@pytest.mark.parametrize("unit", [0, 256, 768, 4 << 20, -512])
def test_other_units_are_refused(unit: int) -> None:
    disk = MemoryDisk(10, fill=0xFF)
    with pytest.raises(ValueError, match=f"unit {unit} is not a power of two from 512 to 2097152"):
        copy(ListSource([(Kind.DATA, 10)]), disk, unit=unit)
    assert disk.data == b"\xff" * 10


@pytest.mark.parametrize(("fill", "unit"), [(0xFF, ZERO_UNIT), (0, FREE_UNIT)])
def test_zeros_inside_data_are_not_written(fill: int, unit: int) -> None:
    source = ListSource([(Kind.DATA, 4 * CHUNK_SIZE)], zero_data=True)
    source.image[ZERO_UNIT] = 1
    disk = MemoryDisk(source.size, fill=fill)
    copied = copy(source, disk)
    assert disk.data == source.image
    assert disk.bytes_written == copied.written == unit


def test_nothing_is_zeroed_on_a_disk_that_reads_as_zero() -> None:
    source = ListSource([(Kind.HOLE, 5), (Kind.DATA, 10), (Kind.ZERO, 7)])
    copied = copy(source, MemoryDisk(30))
    assert (copied.written, copied.zeroed, copied.skipped) == (22, 0, 0)
    source = ListSource([(Kind.HOLE, 8192), (Kind.DATA, 4096), (Kind.ZERO, 700)])
    copied = copy(source, MemoryDisk(30000))
    assert (copied.written, copied.zeroed, copied.skipped) == (4096, 0, 8892)


def test_an_image_larger_than_the_disk_is_refused_before_the_first_byte() -> None:
    disk = MemoryDisk(99, fill=0xFF)
    with pytest.raises(DoesNotFitError, match=r"needs 100 bytes, the disk has 99 bytes; nothing was written") as caught:
        copy(ListSource([(Kind.DATA, 100)]), disk)
    assert (caught.value.needed, caught.value.available) == (100, 99)
    assert disk.data == b"\xff" * 99


class FailingSource(ListSource):
    """The read at one offset fails; later ones count."""

    reads_after_failure = 0
    failed = threading.Event()

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        if offset == 4 * CHUNK_SIZE:
            self.failed.set()
            raise InvalidImageError("cluster 4 is corrupt")
        if self.failed.is_set():
            self.reads_after_failure += 1
            time.sleep(0.2)  # so that the thread that failed runs, on a busy machine, too
        super().read_into(offset, buffer)


def test_the_first_error_stops_the_copy_and_is_reported() -> None:
    source = FailingSource([(Kind.DATA, 64 * CHUNK_SIZE)])
    before = threading.active_count()
    with pytest.raises(InvalidImageError, match="cluster 4 is corrupt"):
        copy(source, MemoryDisk(source.size), workers=2)
    assert source.reads_after_failure <= 2, "workers went on after the failure"
    assert threading.active_count() == before


def test_an_error_in_extents_is_reported() -> None:
    class Broken(ListSource):
        def extents(self) -> Iterator[Extent]:
            yield self.all[0]
            raise InvalidImageError("L2 table 1 is corrupt")

    with pytest.raises(InvalidImageError, match="L2 table 1"):
        copy(Broken([(Kind.DATA, 10), (Kind.DATA, 10)]), MemoryDisk(20))


class Forgetful(MemoryDisk):
    """Loses one byte."""

    def write(self, offset: int, data: Buffer) -> None:
        super().write(offset, data)
        self.data[70_000] = 0xEE


def test_verification_says_where_the_bytes_differ() -> None:
    source = ListSource([(Kind.DATA, 100_000)])
    copy(source, Forgetful(source.size))
    with pytest.raises(VerificationError, match="byte 70000 gave 0xee") as caught:
        copy(source, Forgetful(source.size), verify=True)
    assert caught.value.offset == 70_000


class Watched(FileDisk):
    """Notes what is read from it, and writes one more byte with the first piece."""

    def __init__(self, fd: int, *, stray: int | None = None) -> None:
        super().__init__(fd, "watched", reads_as_zero=True)
        self.read: list[tuple[int, int]] = []
        self._stray = stray

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self.read.append((offset, offset + len(buffer)))
        super().read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:
        super().write(offset, data)
        if self._stray is not None:
            super().write(self._stray, b"x")


@pytest.fixture
def sparse_file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 64 * MIB)
    yield fd
    os.close(fd)


AROUND_A_HOLE = [(Kind.DATA, MIB), (Kind.HOLE, 62 * MIB), (Kind.DATA, MIB)]


def test_a_hole_of_the_disk_is_not_read_back(sparse_file: int) -> None:
    seen: list[tuple[int, int]] = []
    disk = Watched(sparse_file)
    copy(ListSource(AROUND_A_HOLE), disk, verify=True, progress=lambda done, total: seen.append((done, total)))
    assert sorted(disk.read) == [(0, MIB), (63 * MIB, 64 * MIB)]
    assert seen[-1] == (4 * MIB, 4 * MIB)  # holes count in neither pass


@pytest.mark.parametrize("stray", [MIB, 40 * MIB + 5, 63 * MIB - 1])
def test_what_is_in_a_hole_that_should_not_be_is_found(sparse_file: int, stray: int) -> None:
    with pytest.raises(VerificationError) as caught:
        copy(ListSource(AROUND_A_HOLE), Watched(sparse_file, stray=stray), verify=True)
    assert caught.value.offset == stray


def test_data_that_the_disk_has_as_a_hole_is_read_and_missed(sparse_file: int) -> None:
    class Losing(Watched):
        def write(self, offset: int, data: Buffer) -> None:
            if offset < 62 * MIB:
                super().write(offset, data)

    with pytest.raises(VerificationError) as caught:
        copy(ListSource(AROUND_A_HOLE), Losing(sparse_file), verify=True)
    assert caught.value.offset >= 63 * MIB


def test_zeros_that_the_disk_stores_are_read_back(sparse_file: int) -> None:
    os.pwrite(sparse_file, bytes(4 * MIB), 8 * MIB)
    disk = Watched(sparse_file)
    copy(ListSource(AROUND_A_HOLE), disk, verify=True)
    zeros = sorted((start, end) for start, end in disk.read if MIB <= start < 63 * MIB)
    assert (zeros[0][0], zeros[-1][1]) == (8 * MIB, 12 * MIB)


def test_the_holes_of_a_qcow2_are_not_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    read_into = Qcow2Disk.read_into

    def noted(disk: Qcow2Disk, offset: int, buffer: WritableBuffer) -> None:
        read.append(offset)
        read_into(disk, offset, buffer)

    monkeypatch.setattr(Qcow2Disk, "read_into", noted)
    with new_image(tmp_path / "new.qcow2", 64 * MIB, format="qcow2") as disk:
        copy(ListSource(AROUND_A_HOLE), disk, unit=65536, verify=True)
    assert sorted(read) == [0, 63 * MIB]


@pytest.mark.parametrize("verify", [False, True])
def test_progress_rises_to_the_total(verify: bool) -> None:
    seen: list[tuple[int, int]] = []
    source = ListSource([(Kind.DATA, 3 * CHUNK_SIZE + 5), (Kind.HOLE, 1000)])
    copy(source, MemoryDisk(source.size), progress=lambda done, total: seen.append((done, total)), verify=verify)
    total = source.size * (2 if verify else 1)  # the hole is too short to be left out
    assert seen[-1] == (total, total)
    assert {total for _, total in seen} == {total}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_progress_callback_that_raises_stops_the_copy() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = ListSource([(Kind.DATA, 3 * CHUNK_SIZE)])
    with pytest.raises(KeyboardInterrupt):
        copy(source, MemoryDisk(source.size), progress=stop)


def test_a_worker_without_memory_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> object:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(workers, "mmap", no_memory)
    with pytest.raises(StorageError, match="there is no memory for a buffer of 2097152 bytes: Cannot allocate memory"):
        copy(ListSource([(Kind.DATA, 10)]), MemoryDisk(10))


def test_extents_that_do_not_reach_the_end_are_a_failure() -> None:
    class Short(ListSource):
        def extents(self) -> Iterator[Extent]:
            yield self.all[0]

    with pytest.raises(InvalidImageError, match="its extents cover 10 bytes of 20"):
        copy(Short([(Kind.DATA, 10), (Kind.HOLE, 10)]), MemoryDisk(20))


def test_extents_with_a_gap_are_a_failure() -> None:
    class Gap(ListSource):
        def extents(self) -> Iterator[Extent]:
            yield self.all[0]
            yield self.all[2]

    with pytest.raises(InvalidImageError, match="its extents cover 10 bytes of 30"):
        copy(Gap([(Kind.DATA, 10), (Kind.HOLE, 10), (Kind.DATA, 10)]), MemoryDisk(30))


class Stopped(MemoryDisk):
    """A disk whose writes begin, and end when they may."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.begun, self.may_end = threading.Event(), threading.Event()

    def write(self, offset: int, data: Buffer) -> None:
        self.begun.set()
        self.may_end.wait()
        super().write(offset, data)


def test_no_worker_writes_after_an_interruption_even_when_it_comes_twice() -> None:
    source = ListSource([(Kind.DATA, 8 * CHUNK_SIZE)])
    disk = Stopped(source.size)
    interruptions = []

    def interrupt(*_: object) -> None:
        interruptions.append(disk.bytes_written)
        raise KeyboardInterrupt

    def interrupt_twice() -> None:
        disk.begun.wait()
        for _ in range(2):
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)
        disk.may_end.set()

    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=interrupt_twice)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            copy(source, disk, workers=2)
        written = disk.bytes_written
        thread.join()
        time.sleep(0.5)
        assert disk.bytes_written == written
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(interruptions) == 2
    assert disk.bytes_written < source.size


def test_a_signal_while_a_thread_starts_does_not_end_the_wait_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second thread begins, finds nothing to do and ends while the first one still writes."""
    start = threading.Thread.start
    late: list[threading.Timer] = []

    disk = Stopped(CHUNK_SIZE)

    def run_late(thread: threading.Thread) -> None:
        thread.run()
        time.sleep(0.2)
        disk.may_end.set()

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "worker-1":
            disk.begun.wait()
            late.append(threading.Timer(0.1, run_late, [thread]))
            start(late[0])
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy(ListSource([(Kind.DATA, CHUNK_SIZE)]), disk, workers=2)
    written = disk.bytes_written
    late[0].join()
    time.sleep(0.5)
    assert disk.bytes_written == written


@pytest.mark.parametrize("allowed", [0, 1])
def test_threads_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    start, left = threading.Thread.start, [allowed]

    def limited(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    source, disk = MemoryDisk(5 << 20, fill=7), MemoryDisk(5 << 20, fill=0xFF)
    if allowed:
        copy(source, disk)
        assert disk.data == source.data
    else:
        with pytest.raises(StorageError, match="the system would not start a thread"):
            copy(source, disk)
