# SPDX-License-Identifier: MIT
"""Streams through real pipes: ends that are closed, raw streams of unknown length, unusual descriptors."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from pydiskimg.disks.file import GrowingDisk
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.disks.new_file import new_file
from pydiskimg.errors import InvalidImageError, StorageError, UnsupportedImageError
from pydiskimg.images.create import new_image
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import WritableBuffer, read_bytes
from pydiskimg.transfer.ordered import ordered
from pydiskimg.transfer.pipe import PipeReader, PipeWriter
from pydiskimg.transfer.receive import read_stream
from pydiskimg.transfer.send import write_stream
from pydiskimg.transfer.sinks import fill_units
from tests.fixtures.qcow2_images import BytesSource

MIB = 1 << 20


def disk_contents(size: int) -> bytes:
    rng = random.Random(size)
    parts = [rng.choice((bytes(90_000), rng.randbytes(70_000), b"text" * 20_000)) for _ in range(size // 50_000 + 1)]
    return b"".join(parts)[:size]


DATA = disk_contents(9 * MIB + 1536)


@contextmanager
def writer(write: Callable[[int], object]) -> Iterator[int]:
    """Give the reading end of a pipe that write(fd) fills in a thread."""
    reading, writing = os.pipe()

    def run() -> None:
        try:
            write(writing)
        finally:
            os.close(writing)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join(30)
        assert not thread.is_alive()


def send(data: bytes) -> Callable[[int], object]:
    """A writer that ignores a reader that stops reading."""

    def write(fd: int) -> None:
        with suppress(StorageError):
            PipeWriter(fd, "test").write(data)

    return write


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_through_a_pipe(compression: str | None) -> None:
    with (
        writer(lambda fd: write_stream(BytesSource(DATA), fd, compression_type=compression)) as fd,
        read_stream(fd, format="qcow2") as stream,
    ):
        disk = MemoryDisk(len(DATA), fill=0xFF)
        stream.copy_to(disk)
        assert disk.data == DATA


def test_raw_both_ways() -> None:
    with writer(lambda fd: write_stream(BytesSource(DATA), fd, format="raw")) as fd, read_stream(fd) as stream:
        disk = MemoryDisk(len(DATA) + 512, fill=0xFF)
        assert (stream.format, stream.size) == ("raw", None)
        assert stream.copy_to(disk) == len(DATA)
        assert disk.data == DATA + b"\xff" * 512


def test_raw_of_unknown_length_into_new_files(tmp_path: Path) -> None:
    with (
        writer(send(DATA)) as fd,
        read_stream(fd) as stream,
        new_file(tmp_path / "raw") as (out, name),
    ):
        stream.copy_to(GrowingDisk(out, name), grow=True)
    assert (tmp_path / "raw").read_bytes() == DATA
    assert (tmp_path / "raw").stat().st_blocks * 512 < len(DATA) * 3 // 4
    for compress in (False, True):
        path = tmp_path / f"qcow2 {compress}"
        with (
            writer(send(DATA)) as fd,
            read_stream(fd) as stream,
            new_image(path, 0, format="qcow2", cluster_size=4096, compress=compress) as disk,
        ):
            stream.copy_to(disk, grow=True, unit=4096)
        with open_raw(path) as file, open_qcow2(file) as source:
            assert read_bytes(source, 0, source.size) == DATA


def test_raw_that_is_too_long() -> None:
    disk = MemoryDisk(len(DATA) - 1, fill=0xFF)
    words = r"memory: is full after .* and pipe.* has more"
    with (
        writer(send(DATA)) as fd,
        read_stream(fd, name="pipe") as stream,
        pytest.raises(StorageError, match=words) as caught,
    ):
        stream.copy_to(disk)
    assert caught.value.errno == errno.ENOSPC
    assert bytes(disk.data[:MIB]) == bytes(MIB)
    with (
        writer(send(b"")) as fd,
        read_stream(fd, name="pipe") as stream,
        pytest.raises(InvalidImageError, match="pipe: is empty; nothing was written"),
    ):
        stream.copy_to(MemoryDisk(512))


def test_a_guests_disk_is_not_taken_for_an_image() -> None:
    image = b"QFI\xfb\0\0\0\3" + bytes(5000)
    with writer(send(image)) as fd, pytest.raises(UnsupportedImageError, match=r"name the format \(-f\)"):
        read_stream(fd)
    with writer(send(image)) as fd, read_stream(fd, format="raw") as stream:
        disk = MemoryDisk(len(image), fill=0xFF)
        stream.copy_to(disk)
        assert disk.data == image
    with writer(send(b"KDMV" + bytes(600))) as fd, pytest.raises(UnsupportedImageError, match="VMDK"):
        read_stream(fd)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_reader_that_goes_away(kind: str, compression: str | None) -> None:
    reading, writing = os.pipe()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            write_stream(BytesSource(DATA), writing, format=kind, compression_type=compression, name="out")
        except StorageError as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    os.read(reading, 100_000)
    os.close(reading)
    thread.join(30)
    os.close(writing)
    assert isinstance(failures[0], StorageError)
    assert failures[0].errno == errno.EPIPE
    assert str(failures[0]).startswith("out: the reader has closed its end after ")
    assert threading.active_count() == 1


class FailingSource(BytesSource):
    """Fails when the end is read for the second time."""

    seen = 0

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        if offset + len(buffer) > 8 * MIB:
            self.seen += 1
            if self.seen > 1:
                raise StorageError("disk: broken", errno=errno.EIO, filename="disk")
        super().read_into(offset, buffer)


def test_a_source_that_fails_ends_the_stream_early() -> None:
    def write(fd: int) -> None:
        with pytest.raises(StorageError, match="disk: broken"):
            write_stream(FailingSource(DATA), fd)

    with (
        writer(write) as fd,
        read_stream(fd, format="qcow2") as stream,
        pytest.raises(InvalidImageError, match="the stream ends after"),
    ):
        stream.copy_to(MemoryDisk(len(DATA)))
    assert threading.active_count() == 1


class FailingDisk(MemoryDisk):
    def write(self, offset: int, data: object) -> None:
        raise StorageError("disk: broken", errno=errno.EIO, filename="disk")


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_disk_that_fails(kind: str) -> None:
    def write(fd: int) -> None:
        with suppress(StorageError):
            write_stream(BytesSource(DATA), fd, format=kind)

    with (
        writer(write) as fd,
        read_stream(fd, format=kind) as stream,
        pytest.raises(StorageError, match="disk: broken"),
    ):
        stream.copy_to(FailingDisk(len(DATA)))
    assert threading.active_count() == 1


def write_and_close(end: socket.socket) -> None:
    write_stream(BytesSource(DATA), end.fileno())
    end.close()


def test_descriptors_that_do_not_block() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        thread = threading.Thread(target=write_and_close, args=(one,))
        thread.start()
        with read_stream(other.fileno(), format="qcow2") as stream:
            disk = MemoryDisk(len(DATA))
            stream.copy_to(disk)
        thread.join(30)
    assert disk.data == DATA


def test_peeking_loses_nothing() -> None:
    with writer(send(b"0123456789")) as fd:
        reader = PipeReader(fd, "pipe")
        assert reader.peek(3) == b"012"
        assert reader.peek(5) == b"01234"
        assert reader.peek(2) == b"01"
        buffer = bytearray(8)
        assert reader.read_into(memoryview(buffer)) == 8
        assert buffer == b"01234567"
        assert reader.peek(100) == b"89"
        assert reader.read_into(memoryview(buffer)) == 2
        assert reader.position == 10
        assert buffer[:2] == b"89"
        assert reader.read_into(memoryview(buffer)) == 0


def test_reading_as_much_as_there_is() -> None:
    with writer(send(b"0123456789")) as fd:
        reader = PipeReader(fd, "pipe")
        assert reader.peek(3) == b"012"
        assert [reader.read(2), reader.read(5), reader.position] == [b"01", b"2", 3]
        assert b"".join(iter(lambda: reader.read(4), b"")) == b"3456789"
        assert reader.position == 10


@pytest.mark.parametrize("seed", range(40))
def test_units_are_filled(seed: int) -> None:
    """What is widened covers the extents in whole units, and everything in it that is not stored is zero."""
    from pydiskimg.images.qcow2.stream.reader import Chunk

    rng = random.Random(seed)
    length = rng.choice((4096, 4000, 512, 1))
    marks = [rng.random() < 0.3 for _ in range(length)] if seed % 2 else [at // 300 % 3 == 1 for at in range(length)]
    extents: list[tuple[int, int]] = []
    for at, is_stored in enumerate(marks):
        if is_stored and extents and sum(extents[-1]) == at:
            extents[-1] = (extents[-1][0], extents[-1][1] + 1)
        elif is_stored:
            extents.append((at, 1))
    buffer = bytearray(b"\xee" * 4096)
    for start, count in extents:
        buffer[start : start + count] = b"d" * count
    for unit in (512, 1024, 4096):
        widened = fill_units(Chunk(0, length, memoryview(buffer), list(extents)), unit)
        covered = {at for start, count in widened for at in range(start, start + count)}
        assert {at for at, is_stored in enumerate(marks) if is_stored} <= covered
        assert all(
            start % unit == 0 and (sum((start, count)) % unit == 0 or start + count == length)
            for start, count in widened
        )
        assert all(buffer[at] == (ord("d") if marks[at] else 0) for at in covered)


def test_ordered_gives_results_in_order_and_stops_at_the_first_failure() -> None:
    assert list(ordered(iter(range(100)), lambda n: n * n, workers=3)) == [n * n for n in range(100)]
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return 1 // (number - 10)

    with pytest.raises(ZeroDivisionError):
        list(ordered(iter(range(1000)), work, workers=2))
    assert max(done) < 20
    assert threading.active_count() == 1


def test_ordered_waits_for_its_threads_whatever_comes() -> None:
    ended: list[int] = []
    begun, may_end = threading.Event(), threading.Event()

    def work(item: int) -> int:
        begun.set()
        may_end.wait()
        ended.append(item)
        return item

    def interrupt_twice() -> None:
        begun.wait()
        for _ in range(2):
            time.sleep(0.1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.1)
        may_end.set()

    thread = threading.Thread(target=interrupt_twice)
    thread.start()
    with pytest.raises(KeyboardInterrupt), closing(ordered(range(9), work, workers=2)) as results:
        next(results)
    there = len(ended)
    thread.join()
    time.sleep(0.6)
    assert len(ended) == there


def test_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(StorageError, match="the system would not start a thread"):
        list(ordered([1], lambda item: item, workers=2))
