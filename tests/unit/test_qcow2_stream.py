# SPDX-License-Identifier: MIT
"""qcow2 written and read from front to back: what is sent arrives, and nothing else is taken for it."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from pydiskimg.errors import (
    DiskImageError,
    DoesNotFitError,
    InvalidImageError,
    StorageError,
    UnsupportedImageError,
)
from pydiskimg.extents import Extent, Kind
from pydiskimg.formats.qcow2 import layout
from pydiskimg.formats.qcow2.check import check_qcow2
from pydiskimg.formats.qcow2.reader import open_qcow2
from pydiskimg.formats.qcow2.stream import layout as stream_layout
from pydiskimg.formats.qcow2.stream import reader as stream_reader
from pydiskimg.formats.qcow2.stream import spool
from pydiskimg.formats.qcow2.stream import tables as stream_tables
from pydiskimg.formats.qcow2.stream import writer as stream_writer
from pydiskimg.protocols import WritableBuffer, check_range, read_bytes
from pydiskimg.stream import read_stream, write_stream
from pydiskimg.targets.memory import MemoryDisk
from tests.fixtures.qcow2_images import BytesSource, Craft, compressed_entry, deflate, extension

TIB = 1 << 40
MIB = 1 << 20
COPIED = 1 << 63
COMPRESSIONS = (None, "zlib", "zstd")


class SparseSource:
    """A Source of any size with bytes in some places."""

    name = "sparse"

    def __init__(self, size: int, pieces: dict[int, bytes]) -> None:
        self.size = size
        self.pieces = dict(sorted(pieces.items()))
        self.reads = 0

    def extents(self) -> Iterator[Extent]:
        end = 0
        for start, data in self.pieces.items():
            if start > end:
                yield Extent(end, start - end, Kind.HOLE)
            yield Extent(start, len(data), Kind.DATA)
            end = start + len(data)
        if end < self.size:
            yield Extent(end, self.size - end, Kind.HOLE)

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_range(self, offset, len(buffer))
        self.reads += 1
        buffer[:] = bytes(len(buffer))
        for start, data in self.pieces.items():
            first, last = max(start, offset), min(start + len(data), offset + len(buffer))
            if first < last:
                buffer[first - offset : last - offset] = data[first - start : last - start]


@contextmanager
def memory_file(data: bytes = b"") -> Iterator[int]:
    fd = os.memfd_create("stream")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def written(source: SparseSource | BytesSource, **options: object) -> bytes:
    with memory_file() as fd:
        length = write_stream(source, fd, **options)  # type: ignore[arg-type]
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        assert len(data) == length
        return data


def restored(data: bytes, disk: MemoryDisk | None = None, **options: object) -> bytes:
    with memory_file(data) as fd, read_stream(fd, format="qcow2", name="pipe") as stream:
        assert stream.size is not None
        disk = disk or MemoryDisk(stream.size, fill=0xFF)
        assert stream.copy_to(disk, workers=1, **options) == stream.size  # type: ignore[arg-type]
    return bytes(disk.data)


def refused(data: bytes, words: str, error: type[DiskImageError] = InvalidImageError) -> None:
    """The stream is refused, and the disk does not look whole."""
    disk = MemoryDisk(4 * MIB, fill=0xFF)
    with pytest.raises(error, match=words) as caught:
        restored(data, disk)
    assert str(caught.value).startswith("pipe: ")
    assert bytes(disk.data[:512]) in (b"\xff" * 512, bytes(512))


def contents(rng: random.Random, size: int, unit: int) -> bytes:
    """Zeros, text and noise, in runs of about unit bytes."""
    parts: list[bytes] = []
    while (length := sum(map(len, parts))) < size:
        run = min(rng.choice((1, unit - 1, unit, 2 * unit, 5 * unit)), size - length)
        kind = rng.randrange(4)
        parts.append(bytes(run) if kind < 2 else rng.randbytes(run) if kind == 2 else (b"text %d " % run * run)[:run])
    return b"".join(parts)


@settings(max_examples=60, deadline=None)
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
    refused(stream + stream, "something else follows")
    refused(stream + b"\0\1", "something else follows")
    refused(stream + bytes(10001), "something else follows")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


def foreign(data: bytes, *, cluster_bits: int = 9, refcount_order: int = 4, tables_first: bool = False) -> bytes:
    """A stream as another writer lays it out: header, refcount table and blocks, L1, L2 tables, data.

    With tables_first the refcounts come after the L2 tables. All refcounts are one, of 2^refcount_order bits.
    """
    size = 1 << cluster_bits
    clusters = [data[at : at + size].ljust(size, b"\0") for at in range(0, len(data), size)]
    per_table = size // 8
    l1_size = -(-len(clusters) // per_table)
    used = [any(map(any, clusters[n * per_table : (n + 1) * per_table])) for n in range(l1_size)]
    stored = sum(map(any, clusters))
    l1_clusters, tables = -(-l1_size * 8 // size), sum(used)
    blocks = 1
    while 2 + blocks + l1_clusters + tables + stored > blocks * (size * 8 >> refcount_order):
        blocks += 1
    assert blocks <= per_table
    table_at = 1 + l1_clusters + tables if tables_first else 1
    l1_at = 1 if tables_first else 2 + blocks
    end = 2 + blocks + l1_clusters + tables
    header = layout.HEADER_V2.pack(
        layout.MAGIC,
        3,
        0,
        0,
        cluster_bits,
        -(-len(data) // 512) * 512,
        0,
        l1_size,
        l1_at * size,
        table_at * size,
        1,
        0,
        0,
    ) + layout.HEADER_V3.pack(0, 0, 0, refcount_order, 112)
    counts = 0
    for number in range(end + stored):
        at = number << refcount_order
        # Entries of less than a byte fill it from its lowest bit; others are big-endian.
        counts |= 1 << (at if refcount_order < 3 else at + (1 << refcount_order) - 8)
    refcounts = numbers([(table_at + 1 + n) * size for n in range(blocks)]).ljust(size, b"\0")
    refcounts += counts.to_bytes(blocks * size, "little")
    l2_at, next_data = l1_at + l1_clusters, end
    l1, l2 = [], b""
    for number, is_used in enumerate(used):
        l1.append((l2_at * size + len(l2)) | COPIED if is_used else 0)
        if not is_used:
            continue
        entries = []
        for cluster in clusters[number * per_table : (number + 1) * per_table]:
            entries.append(next_data * size | COPIED if any(cluster) else 0)
            next_data += any(cluster)
        l2 += numbers(entries).ljust(size, b"\0")
    mapping = numbers(l1).ljust(l1_clusters * size, b"\0") + l2
    metadata = mapping + refcounts if tables_first else refcounts + mapping
    return header.ljust(size, b"\0") + metadata + b"".join(cluster for cluster in clusters if any(cluster))


def numbers(entries: list[int]) -> bytes:
    return b"".join(entry.to_bytes(8, "big") for entry in entries)


@pytest.mark.parametrize("refcount_order", range(7))
@pytest.mark.parametrize("tables_first", [False, True])
def test_the_same_layout_from_elsewhere(refcount_order: int, tables_first: bool) -> None:
    data = contents(random.Random(refcount_order), 100_000, 512)
    stream = foreign(data, refcount_order=refcount_order, tables_first=tables_first)
    found = check_qcow2(BytesSource(stream))
    assert (found.corruptions, found.leaks) == (0, 0)
    assert restored(stream) == data + bytes(-len(data) % 512)


def test_an_empty_foreign_image() -> None:
    assert restored(foreign(bytes(70000))) == bytes(70144)
    assert restored(foreign(b"")) == b""


def craft(entries: list[int], data: bytes, **fields: object) -> bytes:
    return Craft(l2=[entries], data=data, **fields).build()  # type: ignore[arg-type]


def test_data_that_is_not_in_order() -> None:
    at = Craft(l2=[[]]).data_offset
    a, b = b"a" * 512, b"b" * 512
    assert restored(craft([at, 0, at + 512], a + b))[:1536] == a + bytes(512) + b
    refused(craft([at + 512, at], a + b), "expected at")
    refused(craft([at, at], a + b), "expected at")
    refused(craft([at, at + 1024], a + b + b), "expected at")
    refused(craft([at + 512], a + b), "expected at")
    refused(craft([at - 512], a), "expected at")
    refused(craft([at], a + b), "something else follows")
    refused(craft([at, at + 512 | 1, at + 1024], a + b + b), "expected at")


def test_compressed_data_that_is_not_in_order() -> None:
    at = Craft(l2=[[]]).data_offset
    first, second = deflate(b"a" * 512), deflate(b"b" * 512)
    one = compressed_entry(9, at, len(first))
    two = compressed_entry(9, at + len(first), len(second))
    both = (first + second).ljust(512, b"\0")
    assert restored(craft([one, two], both))[:1024] == b"a" * 512 + b"b" * 512
    refused(craft([two, one], both), "expected at")
    refused(craft([one, one], both), "expected at")
    refused(craft([one, compressed_entry(9, at + 513, len(second))], both + both), "expected at")
    refused(craft([one, two], b"\xff" * 512), "does not decompress|decompresses to")
    assert restored(craft([one, at + 512], both + b"c" * 512))[512:1024] == b"c" * 512
    refused(craft([one, at], both + b"c" * 512), "expected at")


def test_tables_that_do_not_come_first() -> None:
    at = Craft(l2=[[]]).data_offset
    data = b"d" * 512
    later = Craft(l2=[[at - 512]], l1=[at | COPIED], data=numbers([at - 512]).ljust(512, b"\0") + data)
    refused(later.build(), "tables do not all come before")
    # Two L1 entries that share a table leave a cluster over that nothing names.
    size = 200 << 9
    shared = Craft(size=size, l2=[[], []], l1=[Craft().l2_offset | COPIED] * 2 + [0] * 2)
    refused(shared.build(), "tables do not all come before")
    refused(Craft(header={"l1_table_offset": 1 << 50}).build(), "tables do not all come before")
    refused(Craft(header={"refcount_table_offset": 1 << 40}).build(), "tables do not all come before")


def test_what_a_stream_does_not_hold() -> None:
    unsupported = UnsupportedImageError
    backing = Craft(cluster_bits=12, header={"backing_file_offset": 200, "backing_file_size": 4})
    refused(backing.build(), "has the backing file", unsupported)
    refused(Craft(header={"incompatible_features": 4}).build(), "external file", unsupported)
    refused(Craft(header={"nb_snapshots": 1, "snapshots_offset": 512}).build(), "internal snapshots", unsupported)
    refused(Craft(cluster_bits=14, header={"incompatible_features": 16}).build(), "extended L2", unsupported)
    refused(Craft(header={"crypt_method": 2}).build(), "encrypted with LUKS", unsupported)
    refused(Craft(header={"incompatible_features": 2}).build(), "marked corrupt", unsupported)
    refused(b"no image" * 100, "not a qcow2 image")
    refused(b"", "ends after 0 bytes")
    kept = Craft(cluster_bits=12, extensions=extension(layout.EXTENSION_FEATURE_NAMES, b""))
    assert restored(kept.build()) == bytes(64 << 9)


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
        return lambda cluster: zlib_deflated(cluster) + b"\xee" * rng.randrange(3 if cluster_size == 512 else 8)

    monkeypatch.setattr(stream_writer, "compressor", varying)
    data = b"".join(b"%d " % (number * 7919 % 10007) for number in range(100_000)) + rng.randbytes(20_000)
    stream = written(BytesSource(data), cluster_size=cluster_size, compression_type="zlib")
    assert restored(stream)[: len(data)] == data
    found = check_qcow2(BytesSource(stream))
    assert (found.corruptions, found.leaks) == (0, 0)


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


class HugeDisk(SparseSource):
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
    assert seen[-1] == (10 * MIB, 10 * MIB)
    seen.clear()
    restored(stream, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (5 * MIB, 5 * MIB)


@example(0)
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2**32))
def test_stored_clusters_reach_as_far_as_they_can(seed: int) -> None:
    """Clusters of 512 bytes that do not shrink begin with a sector where two sectors would not hold them."""
    rng = random.Random(seed)
    data = b"".join(rng.choice((rng.randbytes(512), b"x" * 512, rng.randbytes(256) * 2)) for _ in range(60))
    for compression in ("zlib", "zstd"):
        stream = written(BytesSource(data), cluster_size=512, compression_type=compression)
        assert restored(stream) == data
