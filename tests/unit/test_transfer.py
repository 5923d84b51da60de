# SPDX-License-Identifier: MIT
"""transfer.copy() over memory: what is not data is zero, first error wins, memory and progress."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg import transfer
from pydiskimg.errors import DoesNotFitError, InvalidImageError, StorageError, VerificationError
from pydiskimg.extents import Extent, Kind
from pydiskimg.protocols import Buffer, WritableBuffer
from pydiskimg.targets.memory import MemoryDisk
from pydiskimg.transfer import CHUNK_SIZE, ZERO_UNIT, copy


class ListSource:
    """A Source made of extents; DATA holds a pattern that depends on the offset."""

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


KINDS = st.sampled_from(list(Kind))


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


def test_zeros_inside_data_are_not_written() -> None:
    source = ListSource([(Kind.DATA, 4 * CHUNK_SIZE)], zero_data=True)
    source.image[ZERO_UNIT] = 1
    disk = MemoryDisk(source.size, fill=0xFF)
    copied = copy(source, disk)
    assert disk.data == source.image
    assert disk.bytes_written == copied.written == ZERO_UNIT


def test_nothing_is_zeroed_on_a_disk_that_reads_as_zero() -> None:
    source = ListSource([(Kind.HOLE, 5), (Kind.DATA, 10), (Kind.ZERO, 7)])
    copied = copy(source, MemoryDisk(30))
    assert (copied.written, copied.zeroed, copied.skipped) == (10, 0, 12)


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


@pytest.mark.parametrize("verify", [False, True])
def test_progress_rises_to_the_total(verify: bool) -> None:
    seen: list[tuple[int, int]] = []
    source = ListSource([(Kind.DATA, 3 * CHUNK_SIZE + 5), (Kind.HOLE, 1000)])
    copy(source, MemoryDisk(source.size), progress=lambda done, total: seen.append((done, total)), verify=verify)
    total = source.size * (2 if verify else 1)
    assert seen[-1] == (total, total)
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

    monkeypatch.setattr(transfer, "mmap", no_memory)
    with pytest.raises(StorageError, match="no buffer of 2097152 bytes is to be had: Cannot allocate memory"):
        copy(ListSource([(Kind.DATA, 10)]), MemoryDisk(10))


def test_extents_that_do_not_reach_the_end_are_a_failure() -> None:
    class Short(ListSource):
        def extents(self) -> Iterator[Extent]:
            yield self.all[0]

    with pytest.raises(InvalidImageError, match="its extents cover 10 bytes of 20"):
        copy(Short([(Kind.DATA, 10), (Kind.HOLE, 10)]), MemoryDisk(20))


class Slow(MemoryDisk):
    def write(self, offset: int, data: Buffer) -> None:
        time.sleep(0.3)
        super().write(offset, data)


def test_no_worker_writes_after_an_interruption_even_when_it_comes_twice() -> None:
    source = ListSource([(Kind.DATA, 8 * CHUNK_SIZE)])
    disk = Slow(source.size)
    interruptions = []

    def interrupt(*_: object) -> None:
        interruptions.append(time.monotonic())
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            copy(source, disk, workers=2)
        signal.setitimer(signal.ITIMER_REAL, 0)
        alive = [thread for thread in threading.enumerate() if thread.name.startswith("copy-") and thread.is_alive()]
        assert not alive
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(interruptions) > 1
    assert disk.bytes_written < source.size
