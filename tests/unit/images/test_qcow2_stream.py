# SPDX-License-Identifier: MIT
"""qcow2 written and read from front to back: the data arrives unchanged, and anything else is refused."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import closing

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import (
    DiskImageError,
    DoesNotFitError,
    InvalidImageError,
    StorageError,
    UnsupportedImageError,
)
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.stream import layout as stream_layout
from pydiskimg.images.qcow2.stream import reader as stream_reader
from pydiskimg.images.qcow2.stream import spool
from pydiskimg.images.qcow2.stream import tables as stream_tables
from pydiskimg.images.qcow2.stream import writer as stream_writer
from pydiskimg.protocols import Disk, WritableBuffer, read_bytes
from pydiskimg.transfer.receive import read_stream
from pydiskimg.transfer.send import write_stream
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.streams import COMPRESSIONS, SparseSource, contents, memory_file, refused, restored, written

TIB = 1 << 40
MIB = 1 << 20


@settings(max_examples=60)
@given(
    st.integers(0, 2**32), st.sampled_from((9, 10, 12, 16, 21)), st.sampled_from(COMPRESSIONS), st.sampled_from((2, 3))
)
def test_what_is_sent_arrives(seed: int, cluster_bits: int, compression: str | None, version: int) -> None:
    rng = random.Random(seed)
    cluster_size = 1 << cluster_bits
    data = contents(rng, rng.randrange(1, 40 * min(cluster_size, 65536) + 3), cluster_size)
    if version == 2 and compression == "zstd":
        compression = "zlib"
    stream = written(
        BytesSource(data), cluster_size=cluster_size, compression_type=compression, version=version, workers=2
    )
    whole = data + bytes(-len(data) % 512)
    assert len(stream) % cluster_size == 0
    found = check_qcow2(BytesSource(stream))
    assert (found.corruptions, found.leaks, found.check_errors) == (0, 0, 0)
    with open_qcow2(BytesSource(stream)) as source:
        assert read_bytes(source, 0, source.size) == whole
    assert restored(stream) == whole
    with memory_file(stream) as fd, memory_file() as out, read_stream(fd, format="qcow2") as reading:
        assert reading.write_to(out) == len(whole)
        assert os.pread(out, len(whole) + 1, 0) == whole


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_proper_prefix_is_an_error(compression: str | None) -> None:
    rng = random.Random(5)
    data = rng.randbytes(700) + bytes(3000) + b"text" * 300 + bytes(800) + rng.randbytes(600)
    stream = written(BytesSource(data), cluster_size=512, compression_type=compression)
    assert restored(stream) == data + bytes(-len(data) % 512)
    lengths = sorted(
        {*range(0, len(stream), 7), *(at + d for at in range(0, len(stream) + 1, 512) for d in (-1, 0, 1))}
    )
    for length in lengths:
        if 0 <= length < len(stream):
            with pytest.raises(DiskImageError):
                restored(stream[:length])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_follows_the_image(compression: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_reader, "PADDING_LIMIT", 10000)
    data = random.Random(1).randbytes(5000)
    stream = written(BytesSource(data), cluster_size=1024, compression_type=compression)
    assert restored(stream + bytes(9000))[:5000] == data
    refused(stream + stream, "other data follow")
    refused(stream + b"\0\1", "other data follow")
    refused(stream + bytes(10001), "other data follow")


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(COMPRESSIONS), st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 7)), min_size=1, max_size=4)
)
def test_flipped_bits(compression: str | None, flips: list[tuple[int, int]]) -> None:
    """Data of the same length, or an error: nothing else happens, however the tables lie."""
    stream = bytearray(FLIPPED[compression])
    for position, bit in flips:
        stream[position % len(stream)] ^= 1 << bit
    disk = MemoryDisk(64 << 10, fill=0xFF)
    try:
        with memory_file(bytes(stream)) as fd, read_stream(fd, format="qcow2") as reading:
            assert reading.copy_to(disk, workers=1) == reading.size
    except DiskImageError:
        event("refused")


FLIPPED = {
    compression: written(
        BytesSource(contents(random.Random(3), 20000, 512)), cluster_size=512, compression_type=compression
    )
    for compression in COMPRESSIONS
}


def test_tables_that_nobody_wants_are_not_read_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_tables.fetch_tables, "__kwdefaults__", {"limit": 4096})
    data = random.Random(2).randbytes(200_000)
    stream = written(BytesSource(data), cluster_size=512)
    with memory_file(stream) as fd, read_stream(fd, format="qcow2", name="pipe") as reading:
        with pytest.raises(UnsupportedImageError, match="of tables before its data, and at most 4096 bytes"):
            reading.copy_to(MemoryDisk(1 << 20))
        assert os.lseek(fd, 0, os.SEEK_CUR) <= 4096


def test_tables_that_nobody_would_read_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_layout, "TABLES_LIMIT", 4096)
    with memory_file() as fd, pytest.raises(UnsupportedImageError, match="use a larger cluster size"):
        write_stream(BytesSource(random.Random(2).randbytes(200_000)), fd, cluster_size=512)


def test_the_size_is_compared_first() -> None:
    stream = written(BytesSource(b"x" * 4096), cluster_size=512)
    disk = MemoryDisk(4095, fill=0xFF)
    with pytest.raises(DoesNotFitError):
        restored(stream, disk)
    assert bytes(disk.data) == b"\xff" * 4095


def test_the_beginning_comes_last_and_the_rest_stays() -> None:
    data = b"boot" * 1024 + bytes(2 * MIB) + b"end!" * 1024
    stream = written(BytesSource(data))
    disk = MemoryDisk(3 * MIB, fill=0xFF)
    with pytest.raises(InvalidImageError, match="the stream ends after"):
        restored(stream[:-1], disk)
    assert bytes(disk.data[:MIB]) == bytes(MIB)
    disk = MemoryDisk(3 * MIB, fill=0xFF)
    assert restored(stream, disk) == data + b"\xff" * (3 * MIB - len(data))
    assert restored(stream, MemoryDisk(3 * MIB)) == data + bytes(3 * MIB - len(data))


class ChangingSource(BytesSource):
    """Its contents differ between the first pass and the second."""

    def __init__(self, first: bytes, second: bytes) -> None:
        super().__init__(first, "disk")
        self._second = second
        self._seen: set[int] = set()

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        super().read_into(offset, buffer)
        if offset in self._seen:
            buffer[:] = self._second[offset : offset + len(buffer)]
        self._seen.add(offset)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_a_source_that_changes(compression: str) -> None:
    noise, text = random.Random(4).randbytes(100_000), b"a" * 100_000
    with memory_file() as fd:
        with pytest.raises(InvalidImageError, match="disk: was changed while it was read"):
            write_stream(ChangingSource(text, noise), fd, compression_type=compression)
        os.lseek(fd, 0, os.SEEK_SET)
        with pytest.raises(InvalidImageError, match="the stream ends after"), read_stream(fd, format="qcow2") as stream:
            stream.copy_to(MemoryDisk(1 << 20))
    # What still fits is sent as it is now.
    for second in (text, bytes(100_000)):
        stream_bytes = written(ChangingSource(noise, second), compression_type=compression)
        assert restored(stream_bytes)[:100_000] == second
        found = check_qcow2(BytesSource(stream_bytes))
        assert (found.corruptions, found.leaks) == (0, 0)


@pytest.mark.parametrize("cluster_size", [512, 4096, 65536])
def test_a_compressor_whose_lengths_vary(cluster_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(6)

    def varying(*_: object, **__: object) -> Callable[[memoryview], bytes]:
        return lambda cluster: rng.choice((b"", EMPTY_BLOCK)) + zlib_deflated(cluster)

    monkeypatch.setattr(stream_writer, "compressor", varying)
    data = b"".join(b"%d " % (number * 7919 % 10007) for number in range(100_000)) + rng.randbytes(20_000)
    stream = written(BytesSource(data), cluster_size=cluster_size, compression_type="zlib")
    assert restored(stream)[: len(data)] == data
    found = check_qcow2(BytesSource(stream))
    assert (found.corruptions, found.leaks) == (0, 0)


EMPTY_BLOCK = b"\0\0\0\xff\xff"  # of deflate, stored: five bytes that say nothing


def zlib_deflated(cluster: memoryview) -> bytes:
    fast = zlib.compressobj(1, zlib.DEFLATED, -12)
    return fast.compress(cluster) + fast.flush()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("size", [64 * TIB, 64 * TIB - 512])
def test_an_empty_image_of_64_tib_is_small(compression: str | None, size: int) -> None:
    stream = written(SparseSource(size, {}), compression_type=compression)
    assert len(stream) < 2 * MIB
    with memory_file(stream) as fd, read_stream(fd, format="qcow2") as reading:
        assert reading.size == size
        disk = HugeDisk(size)
        reading.copy_to(disk)
        assert disk.zeroed == size


class HugeDisk(SparseSource, Disk):
    """A Disk that only counts."""

    sector_size = 512
    reads_as_zero = False

    def __init__(self, size: int) -> None:
        super().__init__(size, {})
        self.zeroed = 0
        self._lock = threading.Lock()

    def write(self, offset: int, data: object) -> None:
        """Only the beginning, of zeros."""
        assert offset == 0

    def zero(self, offset: int, length: int) -> None:
        with self._lock:
            self.zeroed += length

    def flush(self) -> None:
        """Nothing."""

    def drop_cache(self) -> None:
        """Nothing."""


def test_data_far_apart() -> None:
    places = {at * 512 * MIB + 3: b"here" for at in range(0, 4000, 97)}
    source = SparseSource(2 * TIB, places)
    tracemalloc.start()
    try:
        stream = written(source, compression_type="zlib")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * MIB  # buffers are not counted; the stream itself, which is
    found = check_qcow2(BytesSource(stream))
    assert (found.corruptions, found.leaks) == (0, 0)
    with open_qcow2(BytesSource(stream)) as image:
        assert all(read_bytes(image, at - 1, 6) == b"\0here\0" for at in places)


def test_tables_go_to_a_file_beyond_some_size(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(spool, "KEPT_IN_MEMORY", 1000)
    data = contents(random.Random(9), 300_000, 512)
    stream = written(BytesSource(data), cluster_size=512, compression_type="zlib", spool_directory=str(tmp_path))
    assert restored(stream) == data + bytes(-len(data) % 512)
    with pytest.raises(StorageError, match="/nonexistent: cannot keep tables in a temporary file"):
        written(BytesSource(data), cluster_size=512, spool_directory="/nonexistent")


def test_a_spool_reads_what_is_in_the_file_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "KEPT_IN_MEMORY", 10)
    with closing(spool.Spool()) as kept:
        for number in range(20):
            kept.append(bytes([number]) * 3)
        whole = b"".join(bytes([number]) * 3 for number in range(20))
        assert all(kept.read(a, b - a) == whole[a:b] for a in range(61) for b in range(a, 61))
        with pytest.raises(ValueError, match="beyond 60"):
            kept.read(59, 2)


def test_limits_are_known_before_the_first_byte() -> None:
    with memory_file() as fd:
        for size, options, error in (
            (TIB, {"cluster_size": 512}, DoesNotFitError),
            (512, {"cluster_size": 1000}, UnsupportedImageError),
            (512, {"version": 2, "compression_type": "zstd"}, UnsupportedImageError),
            (512, {"compression_type": "lzma"}, UnsupportedImageError),
            (512, {"format": "vmdk"}, UnsupportedImageError),
        ):
            with pytest.raises(error):
                write_stream(SparseSource(size, {}), fd, **options)
        assert os.fstat(fd).st_size == 0


def test_zeros_are_left_out_or_taken_as_they_are() -> None:
    data = b"a" * 65536 + bytes(65536) + b"b" * 65536
    sparse, full = written(BytesSource(data)), written(BytesSource(data), find_zeros=False)
    assert len(full) - len(sparse) == 65536
    assert restored(sparse) == restored(full) == data


def test_progress_counts_both_passes() -> None:
    seen: list[tuple[int, int]] = []
    data = contents(random.Random(7), 5 * MIB, 65536)
    stream = written(BytesSource(data), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    stored = sum(1 for at in range(0, len(data), 65536) if any(data[at : at + 65536])) * 65536
    assert seen[-1] == (5 * MIB + stored, 5 * MIB + stored)  # what proves to be zero is not written
    seen.clear()
    restored(stream, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (stored, stored)


@example(0)
@settings(max_examples=20)
@given(st.integers(1, 2**32))
def test_stored_clusters_reach_as_far_as_they_can(seed: int) -> None:
    """Clusters of 512 bytes that do not shrink begin with a sector where two sectors would not hold them."""
    rng = random.Random(seed)
    data = b"".join(rng.choice((rng.randbytes(512), b"x" * 512, rng.randbytes(256) * 2)) for _ in range(60))
    for compression in ("zlib", "zstd"):
        stream = written(BytesSource(data), cluster_size=512, compression_type=compression)
        assert restored(stream) == data
