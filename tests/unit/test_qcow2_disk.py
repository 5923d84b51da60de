# SPDX-License-Identifier: MIT
"""A qcow2 image as a Disk: against a bytearray, whatever is done; what is refused; threads; failing storage."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pydiskimg.disk import open_disk
from pydiskimg.errors import DoesNotFitError, InvalidImageError, StorageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.formats.qcow2 import layout
from pydiskimg.formats.qcow2.check import check_qcow2
from pydiskimg.formats.qcow2.reader import open_qcow2
from pydiskimg.formats.qcow2.write import guest_map, refcounts
from pydiskimg.formats.qcow2.write.create import create_qcow2
from pydiskimg.formats.qcow2.write.disk import Qcow2Disk, open_qcow2_disk
from pydiskimg.image_creation import new_image
from pydiskimg.protocols import Buffer, WritableBuffer, read_bytes
from pydiskimg.targets.growing import FixedStore
from pydiskimg.targets.memory import MemoryDisk
from tests.fixtures.qcow2_images import BytesSource, Craft, assert_contract
from tests.fixtures.stores import CrashingStore, MemoryStore

CLUSTER = 512


def new_disk(size: int, *, cluster_size: int = CLUSTER, compress: bool = False) -> tuple[MemoryStore, Qcow2Disk]:
    store = MemoryStore()
    create_qcow2(store, size, cluster_size=cluster_size)
    return store, open_qcow2_disk(store, compress=compress)


def assert_clean(store: MemoryStore) -> None:
    found = check_qcow2(BytesSource(bytes(store.data)))
    assert found.is_clean, found.details


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
    monkeypatch.setattr(guest_map, "L2_CACHE", 2 * CLUSTER)
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


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"incompatible_features": layout.INCOMPATIBLE_DIRTY}, "was not closed by its last writer"),
        ({"incompatible_features": layout.INCOMPATIBLE_CORRUPT}, "is marked corrupt"),
        ({"incompatible_features": layout.INCOMPATIBLE_DATA_FILE}, "has an external data file"),
        ({"crypt_method": 2}, "is encrypted with LUKS"),
        ({"backing_file_offset": 200, "backing_file_size": 4}, "has a backing file, which must be opened with it"),
    ],
)
def test_what_is_not_written(header: dict[str, int], words: str) -> None:
    store = MemoryStore(Craft(header=header).build())
    before = bytes(store.data)
    with pytest.raises(UnsupportedImageError, match=words):
        open_qcow2_disk(store)
    assert store.data == before


def test_extended_l2_is_not_written() -> None:
    header = {"incompatible_features": layout.INCOMPATIBLE_EXTENDED_L2}
    with pytest.raises(UnsupportedImageError, match="has extended L2 entries"):
        open_qcow2_disk(MemoryStore(Craft(cluster_bits=14, size=1 << 20, header=header).build()))


@pytest.mark.parametrize("bits", [1, 1 << 40])
def test_autoclear_bits_go_with_the_first_write(bits: int) -> None:
    store, _ = new_disk(1 << 20)
    store.data[88:96] = bits.to_bytes(8, "big")
    disk = open_qcow2_disk(store)
    read_bytes(disk, 0, 1000)
    disk.flush()
    assert store.data[88:96] == bits.to_bytes(8, "big")
    disk.zero(0, 1)
    assert store.data[88:96] == bytes(8)


def test_a_cluster_in_use_that_is_not_counted() -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    entry = next(entry for entry in layout_entries(store, disk) if entry)
    host = (entry & layout.ENTRY_OFFSET) // CLUSTER
    block = int.from_bytes(store.data[CLUSTER : CLUSTER + 8], "big")
    store.data[block + 2 * host : block + 2 * host + 2] = bytes(2)
    disk = open_qcow2_disk(store)
    disk.zero(0, CLUSTER)
    with pytest.raises(InvalidImageError, match=r"cluster at 0x[0-9a-f]+ is in use and has a reference count of 0"):
        disk.flush()


def layout_entries(store: MemoryStore, disk: Qcow2Disk) -> list[int]:
    found = disk._map.entries(0, 8)
    return list(found or ())


@pytest.mark.parametrize("where", ["refcount table", "refcount block", "L1 table", "L2 table"])
def test_an_entry_that_names_metadata(where: str) -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    l1 = int.from_bytes(store.data[40:48], "big")
    l2 = int.from_bytes(store.data[l1 : l1 + 8], "big") & layout.ENTRY_OFFSET
    block = int.from_bytes(store.data[CLUSTER : CLUSTER + 8], "big")
    offset = {"refcount table": CLUSTER, "refcount block": block, "L1 table": l1, "L2 table": l2}[where]
    store.data[l2 : l2 + 8] = (offset | layout.COPIED).to_bytes(8, "big")
    before = bytes(store.data)
    disk = open_qcow2_disk(store)
    with pytest.raises(InvalidImageError, match="tables of the image"):
        disk.write(0, b"y" * CLUSTER)
    assert store.data == before


@pytest.mark.parametrize("offset", [1 << 21, (1 << 21) + 1])
def test_compressed_data_beyond_the_end_of_a_device(offset: int) -> None:
    """Its last bit says of compressed data nothing but where it is, and a device is not read beyond its end."""
    device = MemoryDisk(1 << 20, name="device")
    store = FixedStore(device)
    create_qcow2(store, 1 << 20, cluster_size=CLUSTER)
    disk = open_qcow2_disk(store)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    l1 = int.from_bytes(device.data[40:48], "big")
    l2 = int.from_bytes(device.data[l1 : l1 + 8], "big") & layout.ENTRY_OFFSET
    device.data[l2 : l2 + 8] = (layout.L2_COMPRESSED | offset).to_bytes(8, "big")
    before = bytes(device.data)
    disk = open_qcow2_disk(store)
    for call in (lambda: read_bytes(disk, 0, 1), lambda: disk.write(1, b"y"), lambda: disk.write(0, b"y" * CLUSTER)):
        with pytest.raises(InvalidImageError, match=f"cluster offset 0x{offset:x} lies beyond the end of the file"):
            call()
    assert device.data == before


def test_an_entry_that_names_the_header() -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    l1 = int.from_bytes(store.data[40:48], "big")
    l2 = int.from_bytes(store.data[l1 : l1 + 8], "big") & layout.ENTRY_OFFSET
    store.data[l2 : l2 + 8] = layout.COPIED.to_bytes(8, "big")
    header = store.data[:CLUSTER]
    disk = open_qcow2_disk(store)
    disk.write(0, b"y" * CLUSTER)
    disk.write(CLUSTER + 5, b"y")
    disk.flush()
    assert store.data[:CLUSTER] == header
    assert read_bytes(disk, 0, CLUSTER) == b"y" * CLUSTER


def test_refcounts_that_call_metadata_free() -> None:
    store, disk = new_disk(1 << 20)
    disk.write(0, b"x" * CLUSTER)
    disk.write(40000, b"x" * CLUSTER)
    disk.flush()
    block = int.from_bytes(store.data[CLUSTER : CLUSTER + 8], "big")
    store.data[block : block + CLUSTER] = bytes(CLUSTER)
    disk = open_qcow2_disk(store)
    disk.write(20000, b"y" * 20 * CLUSTER)
    disk.flush()
    source = open_qcow2(BytesSource(bytes(store.data)))
    assert read_bytes(source, 20000, 20 * CLUSTER) == b"y" * 20 * CLUSTER


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


def test_refcounts_that_claim_the_far_end() -> None:
    """They would have new clusters put there, and a small file become a huge one."""
    store, _ = new_disk(1 << 20, cluster_size=4096)
    block = len(store.data)
    store.write(block, b"\0\1" * 2048)
    store.write(4096 + 8 * 500, block.to_bytes(8, "big"))
    with pytest.raises(InvalidImageError, match=r"clusters up to 0x.* are counted as used, and the file ends at 0x"):
        open_qcow2_disk(store)


def test_growing_over_a_longer_backing_file_never_shows_it() -> None:
    """Whatever was written when the machine stops, what is behind the old end reads as zero."""
    backing = BytesSource(b"\1" * (64 << 10))
    store = CrashingStore()
    create_qcow2(store, 16 << 10, cluster_size=4096, backing_file=b"base", backing_format=b"raw")
    store = CrashingStore(bytes(store.data))
    open_qcow2_disk(store, backing=backing).grow(64 << 10)
    for _, image in store.crashes(random.Random(7), each=6):
        found = open_qcow2(BytesSource(image), backing=backing)
        if found.size > 16 << 10:
            assert read_bytes(found, 16 << 10, found.size - (16 << 10)) == bytes(found.size - (16 << 10))
