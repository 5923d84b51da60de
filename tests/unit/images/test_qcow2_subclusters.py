# SPDX-License-Identifier: MIT
"""Writing into images with extended L2 entries: the state of each subcluster, also after an interruption."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.switch.snapshots import take_snapshot
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import Qcow2Disk, open_qcow2_disk
from pydiskimg.protocols import read_bytes
from tests.fixtures.disk_history import History
from tests.fixtures.qcow2_disks import assert_clean
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import CrashingStore, MemoryStore

CLUSTER = 16 << 10  # subclusters have 512 bytes
SIZE = 40 * CLUSTER + 1024


def new_store(*, preallocated: bool = False) -> MemoryStore:
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=CLUSTER, extended_l2=True)
    if preallocated:
        disk = open_qcow2_disk(store)
        disk.preallocate(0, SIZE)
        disk.flush()
    return store


def stored(disk: Qcow2Disk) -> list[Extent]:
    return [extent for extent in disk.extents() if extent.kind is not Kind.HOLE]


def reread(store: MemoryStore) -> bytes:
    source = open_qcow2(BytesSource(bytes(store.data)))
    return read_bytes(source, 0, source.size)


@pytest.mark.parametrize("preallocated", [False, True])
def test_only_what_was_written_is_stored(*, preallocated: bool) -> None:
    store = new_store(preallocated=preallocated)
    disk = open_qcow2_disk(store)
    disk.write(5 * CLUSTER + 700, b"x" * 900)  # in three subclusters, the first and the last not filled
    disk.write(7 * CLUSTER, b"y" * 512)
    disk.write(SIZE - 1, b"z")
    disk.flush()
    assert stored(disk) == [
        Extent(5 * CLUSTER + 512, 1536, Kind.DATA),
        Extent(7 * CLUSTER, 512, Kind.DATA),
        Extent(SIZE - 512, 512, Kind.DATA),
    ]
    assert_clean(store)
    expected = bytearray(SIZE)
    expected[5 * CLUSTER + 700 : 5 * CLUSTER + 1600] = b"x" * 900
    expected[7 * CLUSTER : 7 * CLUSTER + 512] = b"y" * 512
    expected[-1:] = b"z"
    assert reread(store) == expected


def test_whole_subclusters_are_zeroed_by_their_bits() -> None:
    store = new_store()
    disk = open_qcow2_disk(store)
    disk.write(0, b"x" * CLUSTER)
    disk.flush()
    size = store.size
    disk.zero(1024, 1024)
    disk.zero(3000, 100)  # inside of one: by writing
    disk.zero(4000, 1000)
    disk.flush()
    assert store.size == size
    assert stored(disk)[:2] == [Extent(0, 1024, Kind.DATA), Extent(2048, 2048, Kind.DATA)]
    found = reread(store)[:CLUSTER]
    expected = bytearray(b"x" * CLUSTER)
    for start, length in ((1024, 1024), (3000, 100), (4000, 1000)):
        expected[start : start + length] = bytes(length)
    assert found == expected
    assert_clean(store)


def test_zeros_hide_what_the_backing_file_has() -> None:
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=CLUSTER, extended_l2=True, backing_file=b"base", backing_format=b"raw")
    backing = BytesSource(b"b" * SIZE)
    disk = open_qcow2_disk(store, backing=backing)
    disk.write(600, b"x")
    disk.zero(2048, 512)
    disk.zero(CLUSTER, 2 * CLUSTER)
    disk.zero(5 * CLUSTER - 512, 1024)
    disk.flush()
    expected = bytearray(b"b" * SIZE)
    expected[600] = ord("x")
    for start, length in ((2048, 512), (CLUSTER, 2 * CLUSTER), (5 * CLUSTER - 512, 1024)):
        expected[start : start + length] = bytes(length)
    source = open_qcow2(BytesSource(bytes(store.data)), backing=backing)
    assert read_bytes(source, 0, SIZE) == expected
    assert [extent for extent in disk.extents() if extent.kind is Kind.ZERO] == [
        Extent(2048, 512, Kind.ZERO),
        Extent(CLUSTER, 2 * CLUSTER, Kind.ZERO),
        Extent(5 * CLUSTER - 512, 1024, Kind.ZERO),
    ]


def test_a_cluster_of_a_snapshot_is_copied_as_far_as_it_is_stored() -> None:
    store = new_store()
    disk = open_qcow2_disk(store)
    disk.write(1024, b"a" * 512)
    disk.write(8192, b"b" * 512)
    disk.flush()
    take_snapshot(store, "kept", now_ns=0)
    disk = open_qcow2_disk(store)
    disk.write(4096, b"c" * 100)
    disk.flush()
    assert [(extent.start, extent.length) for extent in stored(disk)] == [(1024, 512), (4096, 512), (8192, 512)]
    assert_clean(store)
    assert read_bytes(disk, 0, CLUSTER)[4096:4200] == b"c" * 100 + bytes(4)
    before = open_qcow2(BytesSource(bytes(store.data)), snapshot="kept")
    assert read_bytes(before, 0, CLUSTER) == bytes(1024) + b"a" * 512 + bytes(6656) + b"b" * 512 + bytes(7680)


@pytest.mark.parametrize("preallocated", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_interrupted_at_every_write(seed: int, *, preallocated: bool) -> None:
    rng = random.Random(seed)
    begun = new_store(preallocated=preallocated)
    disk = open_qcow2_disk(begun)
    for _ in range(5):
        disk.write(rng.randrange(SIZE // 512 - 40) * 512, rng.randbytes(20 * 512))
    disk.flush()
    if seed % 2:
        take_snapshot(begun, "kept", now_ns=0)
    store = CrashingStore(bytes(begun.data))
    history = History(store, lambda image: reread(MemoryStore(image)))
    disk = open_qcow2_disk(store)
    for _ in range(4):
        history.change(disk, rng, longest=3 * CLUSTER)
    for flushes, image in store.crashes(rng, each=3):
        found = check_qcow2(BytesSource(image))
        assert not found.corruptions, found.details
        history.assert_possible(flushes, image)
    assert_clean(store)
    assert reread(store) == history.data


def entry_of(store: MemoryStore) -> int:
    """Where the L2 entry of the disk's first cluster is in the file."""
    l1 = int.from_bytes(store.data[40:48], "big")
    return int.from_bytes(store.data[l1 : l1 + 8], "big") & ((1 << 56) - 1)


@pytest.mark.parametrize(
    ("entry", "bitmap", "words"),
    [
        (None, 1 << 32 | 1, "allocated and zero"),
        (0, 1, "has no host offset"),
        (1 << 62, 1, "a compressed cluster that has subclusters"),
        (1 << 63 | 1, 0, "reserved bits"),
        (1 << 40, 1, "beyond the end of the file"),
    ],
)
@pytest.mark.parametrize(
    "act",
    [lambda disk: disk.write(3, b"y"), lambda disk: disk.zero(3, 600), lambda disk: read_bytes(disk, 0, 10)],
)
def test_entries_that_lie(entry: int | None, bitmap: int, words: str, act: Callable[[Qcow2Disk], object]) -> None:
    store = new_store()
    disk = open_qcow2_disk(store)
    disk.write(0, b"x" * 512)
    disk.flush()
    at = entry_of(store)
    if entry is not None:
        store.data[at : at + 8] = entry.to_bytes(8, "big")
    store.data[at + 8 : at + 16] = bitmap.to_bytes(8, "big")
    disk = open_qcow2_disk(store)
    with pytest.raises(InvalidImageError, match=words):
        act(disk)
