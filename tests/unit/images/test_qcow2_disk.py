# SPDX-License-Identifier: MIT
"""A qcow2 image as a Disk: every operation compared with a bytearray; threads; failing storage."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pydiskimg.errors import DoesNotFitError, InvalidImageError, StorageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.create import new_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.write import l2_map, refcounts
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.protocols import Buffer, WritableBuffer, read_bytes
from tests.fixtures.qcow2_disks import CLUSTER, assert_clean, new_disk
from tests.fixtures.qcow2_images import BytesSource, assert_contract
from tests.fixtures.stores import CrashingStore, MemoryStore


class DiskMachine(RuleBasedStateMachine):
    """Everything a Disk can be asked for, on 1 KiB more than four L2 tables map."""

    @initialize(
        version=st.sampled_from((2, 3)),
        compress=st.booleans(),
        backing=st.sampled_from((None, 1, 40000, 200000)),
        compression_type=st.sampled_from(("zlib", "zstd")),
    )
    def make(self, version: int, backing: int | None, compression_type: str, *, compress: bool) -> None:
        self.store = MemoryStore()
        self.compress = compress
        self.backing = BytesSource(random.Random(1).randbytes(backing)) if backing else None
        create_qcow2(
            self.store,
            4 * 32768 + 1024,
            cluster_size=CLUSTER,
            version=version,
            compression_type=compression_type if version == 3 else "zlib",
            backing_file=b"base" if backing else b"",
            backing_format=b"raw" if backing else b"",
        )
        self.open()
        below = self.backing.data if self.backing else b""
        self.data = bytearray(below[: self.disk.size].ljust(self.disk.size, b"\0"))

    def open(self) -> None:
        self.disk = open_qcow2_disk(self.store, backing=self.backing, compress=self.compress)

    def range(self, where: tuple[int, int]) -> tuple[int, int]:
        start = where[0] % self.disk.size
        return start, min(where[1], self.disk.size - start)

    ranges = st.tuples(
        st.one_of(st.integers(0, 1 << 18), st.integers(0, 600).map(lambda number: number * CLUSTER)),
        st.one_of(st.integers(0, 3 * CLUSTER), st.integers(0, 80).map(lambda number: number * CLUSTER)),
    )

    @rule(where=ranges, seed=st.integers(0, 1000), plain=st.booleans())
    def write(self, where: tuple[int, int], seed: int, *, plain: bool) -> None:
        start, length = self.range(where)
        new = (b"%d " % seed) * length if plain else random.Random(seed).randbytes(length)
        self.disk.write(start, new[:length])
        self.data[start : start + length] = new[:length]

    @rule(where=ranges, pieces=st.integers(1, 5), shared=st.sampled_from((0, 1, 2, 1 << 30)), seed=st.integers(0, 1000))
    def share(self, where: tuple[int, int], pieces: int, shared: int, seed: int) -> None:
        """Whole clusters from pieces of a file, in disorder; a refusal, which may come half-way, has them written."""
        start, length = self.range((where[0] // CLUSTER * CLUSTER, where[1] // CLUSTER * CLUSTER))
        new = random.Random(seed).randbytes(length)
        cuts = sorted({0, length, *(number * length // pieces // CLUSTER * CLUSTER for number in range(pieces))})
        parts = [new[low:high] for low, high in pairwise(cuts)]
        fd = os.memfd_create("shared")
        try:
            ranges: list[tuple[int, int, int]] = []
            for part in reversed(parts):
                ranges.insert(0, (fd, os.lseek(fd, 0, os.SEEK_CUR), len(part)))
                os.write(fd, part)
            self.store.most_shared = shared
            is_done = self.disk.share(start, ranges)
        finally:
            os.close(fd)
        if self.compress:
            assert not is_done
        elif shared > len(self.data) // CLUSTER:
            assert is_done
        if not is_done:
            self.disk.write(start, new)
        self.data[start : start + length] = new

    @rule(where=st.lists(ranges, min_size=1, max_size=12), seed=st.integers(0, 1000))
    def write_ranges(self, where: list[tuple[int, int]], seed: int) -> None:
        """Several at once, ascending and apart, of bytes that need not follow each other."""
        data = memoryview(random.Random(seed).randbytes(sum(length for _, length in where) + 1))
        ranges: list[tuple[int, int, int]] = []
        at = after = seed % 2
        for start, length in sorted(map(self.range, where)):
            if start < after or not length:
                continue
            ranges.append((start, at, at + length))
            self.data[start : start + length] = data[at : at + length]
            at, after = at + length, start + length
        self.disk.write_ranges([some for some in ranges if some[2] <= len(data)], data)

    @rule(where=ranges)
    def write_zeros(self, where: tuple[int, int]) -> None:
        start, length = self.range(where)
        self.disk.write(start, bytes(length))
        self.data[start : start + length] = bytes(length)

    @rule(where=ranges)
    def zero(self, where: tuple[int, int]) -> None:
        start, length = self.range(where)
        self.disk.zero(start, length)
        self.data[start : start + length] = bytes(length)

    @rule(where=ranges)
    def read(self, where: tuple[int, int]) -> None:
        start, length = self.range(where)
        assert read_bytes(self.disk, start, length) == self.data[start : start + length]

    @rule()
    def flush(self) -> None:
        self.disk.flush()
        assert_clean(self.store)

    @rule()
    def reopen(self) -> None:
        self.disk.flush()
        self.open()

    @rule(more=st.integers(0, 40000))
    def grow(self, more: int) -> None:
        self.disk.grow(self.disk.size + more)
        self.data.extend(bytes(self.disk.size - len(self.data)))

    @rule()
    def drop_cache(self) -> None:
        self.disk.drop_cache()

    @invariant()
    def extents_cover_the_disk(self) -> None:
        for extent in assert_contract(self.disk):
            if extent.kind is not Kind.DATA:
                assert not any(self.data[extent.start : extent.end])

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            self.disk.flush()
            assert_clean(self.store)
            source = open_qcow2(BytesSource(bytes(self.store.data)), backing=self.backing)
            assert read_bytes(source, 0, source.size) == self.data


DiskMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestDiskMachine = DiskMachine.TestCase


@pytest.mark.parametrize("compress", [False, True])
def test_small_caches(monkeypatch: pytest.MonkeyPatch, *, compress: bool) -> None:
    monkeypatch.setattr(l2_map, "L2_CACHE", 2 * CLUSTER)
    monkeypatch.setattr(refcounts, "BLOCK_CACHE", 2 * CLUSTER)
    monkeypatch.setattr(refcounts, "MOST_RELEASES", 3)
    store, disk = new_disk(1 << 20, compress=compress)
    data, rng = bytearray(1 << 20), random.Random(3)
    for _ in range(300):
        start = rng.randrange(1 << 20)
        length = min(rng.choice((10, 3000, 70000)), (1 << 20) - start)
        new = rng.choice((rng.randbytes(length), b"x" * length, bytes(length)))
        if any(new):
            disk.write(start, new)
        else:
            disk.zero(start, length)
        data[start : start + length] = new
    assert read_bytes(disk, 0, disk.size) == data
    disk.flush()
    assert_clean(store)


def test_freed_clusters_are_used_again() -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"a" * (1 << 20))
    disk.flush()
    size = store.size
    for _ in range(5):
        disk.zero(0, 1 << 20)
        disk.flush()
        disk.write(0, b"b" * (1 << 20))
        disk.flush()
    assert store.size <= size + 10 * CLUSTER
    assert_clean(store)


def test_zeros_take_no_place() -> None:
    store, disk = new_disk(1 << 30, cluster_size=65536, compress=True)
    empty = store.size
    disk.write(0, bytes(4 << 20))
    disk.zero(0, 1 << 30)
    disk.flush()
    assert store.size == empty
    assert list(disk.extents()) == [Extent(0, 1 << 30, Kind.HOLE)]


def test_compressed_clusters_lie_together() -> None:
    store, disk = new_disk(4 << 20, cluster_size=65536, compress=True)
    before = store.size
    disk.write(0, b"".join(bytes([number]) * 65536 for number in range(1, 33)))
    disk.flush()
    assert store.size - before <= 2 * 65536  # all of them in one cluster, and the L2 table
    assert_clean(store)


def test_one_write_for_compressed_clusters() -> None:
    class Counting(MemoryStore):
        writes = 0

        def write(self, offset: int, data: Buffer) -> None:
            self.writes += 1
            super().write(offset, data)

    store = Counting()
    create_qcow2(store, 4 << 20)
    disk = open_qcow2_disk(store, compress=True)
    store.writes = 0
    disk.write(0, b"abc" * 65536 * 8)
    assert store.writes == 1


class YieldingStore(MemoryStore):
    """Lets other threads run between what is read and what is written after it."""

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        super().read_into(offset, buffer)
        time.sleep(0.0001)

    def write(self, offset: int, data: Buffer) -> None:
        time.sleep(0.0001)
        super().write(offset, data)


def test_threads() -> None:
    size = 2 << 20
    store = YieldingStore()
    create_qcow2(store, size, cluster_size=4096)
    disk = open_qcow2_disk(store, compress=True)
    data = bytearray(size)
    failures: list[BaseException] = []
    together = threading.Barrier(8, timeout=120)

    def work(number: int) -> None:
        """Sectors of its own in every cluster, at the same time as the other threads write theirs."""
        rng = random.Random(number)
        try:
            for cluster in range(150):
                together.wait()
                start = cluster * 4096 + number * 512
                new = rng.choice((rng.randbytes(512), bytes([number + 1]) * 512))
                disk.write(start, new)
                data[start : start + 512] = new
                assert read_bytes(disk, start, 512) == new
                if rng.random() < 0.05:
                    disk.flush()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert read_bytes(disk, 0, size) == data
    disk.flush()
    assert_clean(store)


class FailingStore(MemoryStore):
    """Fails from the given number of writes on, until it is told not to."""

    left = 1 << 30

    def write(self, offset: int, data: Buffer) -> None:
        if not self.left:
            raise StorageError("test: full", errno=errno.ENOSPC, filename="test")
        self.left -= 1
        super().write(offset, data)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("left", range(12))
def test_a_write_that_fails_leaves_the_image_whole(left: int, *, compress: bool) -> None:
    store = FailingStore()
    create_qcow2(store, 1 << 20, cluster_size=CLUSTER)
    disk = open_qcow2_disk(store, compress=compress)
    disk.write(0, b"one " * 10000)
    disk.flush()
    store.left = left
    with pytest.raises(StorageError, match="full"):  # noqa: PT012 - any of them may be the one
        for start in range(0, 1 << 20, 100000):
            disk.write(start, b"two " * 10000)
            disk.zero(start + 5000, 10000)
            disk.flush()
    found = check_qcow2(BytesSource(bytes(store.data)))
    assert not found.corruptions, found.details
    store.left = 1 << 30
    disk.write(0, b"three " * 10000)
    disk.flush()
    assert read_bytes(disk, 0, 60000) == b"three " * 10000
    assert not check_qcow2(BytesSource(bytes(store.data))).corruptions


@pytest.mark.parametrize("tried_again", [False, True])
@pytest.mark.parametrize("left", range(3))
def test_growing_that_fails_changes_nothing(left: int, *, tried_again: bool) -> None:
    store = FailingStore()
    create_qcow2(store, 32768, cluster_size=CLUSTER)
    disk = open_qcow2_disk(store)
    store.left = left
    with pytest.raises(StorageError, match="full"):
        disk.grow(1 << 20)
    store.left = 1 << 30
    if tried_again:
        disk.grow(1 << 20)
    disk.write(0, b"data" * 128)
    disk.flush()
    assert not check_qcow2(BytesSource(bytes(store.data))).corruptions
    source = open_qcow2(BytesSource(bytes(store.data)))
    assert source.size == (1 << 20 if tried_again else 32768)
    assert read_bytes(source, 0, 512) == b"data" * 128


def test_growing_has_a_limit() -> None:
    store, disk = new_disk(1 << 20)
    before = bytes(store.data)
    with pytest.raises(DoesNotFitError, match="128 GiB"):
        disk.grow(1 << 40)
    disk.grow(1000)
    assert disk.size == 1 << 20
    assert store.data == before


def test_outside_of_the_disk() -> None:
    _, disk = new_disk(1000)
    for call in (lambda: disk.write(1020, b"12345"), lambda: disk.zero(-1, 5), lambda: read_bytes(disk, 1024, 1)):
        with pytest.raises(ValueError, match="are outside of 0 to 1024"):
            call()


def test_open_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    with new_image(path, 1 << 20, format="qcow2"):
        pass
    with open_disk(path, writable=True, format="qcow2") as disk:
        assert (disk.format, disk.size, disk.sector_size, disk.cluster_size) == ("qcow2", 1 << 20, 512, 65536)
        assert disk.reads_as_zero
        disk.write(0, b"kept without flush()")
    with open_disk(path, writable=True, format="qcow2") as disk:
        assert not disk.reads_as_zero
        assert read_bytes(disk, 0, 20) == b"kept without flush()"
    before = sorted(os.listdir("/proc/self/fd"))
    path.write_bytes(b"no image" * 20)
    with pytest.raises(InvalidImageError, match="not a qcow2 image"):
        open_disk(path, writable=True, format="qcow2")
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("version", [2, 3])
def test_zeros_before_a_backing_file_stay_small_when_compressed(version: int) -> None:
    store, backing = MemoryStore(), BytesSource(b"\1" * (1 << 20))
    create_qcow2(store, 1 << 20, cluster_size=4096, version=version, backing_file=b"base", backing_format=b"raw")
    disk = open_qcow2_disk(store, backing=backing, compress=True)
    data = (b"a" * 4096 + bytes(4096)) * 128
    disk.write(0, data)
    disk.flush()
    assert read_bytes(disk, 0, 1 << 20) == data
    assert store.size < 100_000
    assert_clean(store)


def test_growing_over_a_longer_backing_file_never_shows_it() -> None:
    """Whatever was written when the machine stops, the bytes after the old end read as zero."""
    backing = BytesSource(b"\1" * (64 << 10))
    store = CrashingStore()
    create_qcow2(store, 16 << 10, cluster_size=4096, backing_file=b"base", backing_format=b"raw")
    store = CrashingStore(bytes(store.data))
    open_qcow2_disk(store, backing=backing).grow(64 << 10)
    for _, image in store.crashes(random.Random(7), each=6):
        found = open_qcow2(BytesSource(image), backing=backing)
        if found.size > 16 << 10:
            assert read_bytes(found, 16 << 10, found.size - (16 << 10)) == bytes(found.size - (16 << 10))
