# SPDX-License-Identifier: MIT
"""A virtual disk becomes smaller, or empty: interrupted at every write, and with images that lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

from pydiskimg.errors import DiskImageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.switch.empty import empty_qcow2
from pydiskimg.images.qcow2.switch.shrink import shrink_qcow2
from pydiskimg.images.qcow2.switch.snapshots import take_snapshot
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_disks import CLUSTER, assert_clean, new_disk
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import CrashingStore, MemoryStore

SIZE = 4 * 32768  # what four L2 tables map


def filled(seed: int, *, snapshot: bool = False) -> MemoryStore:
    store, disk = new_disk(SIZE, compress=bool(seed % 2))
    rng = random.Random(seed)
    for _ in range(6):
        start = rng.randrange(SIZE - 9 * CLUSTER)
        disk.write(start, rng.randbytes(4 * CLUSTER) + bytes(range(256)) * 8)
    disk.flush()
    if snapshot:
        take_snapshot(store, "kept", now_ns=0)
        disk = open_qcow2_disk(store)
        disk.write(1000, b"more")
        disk.flush()
    return store


def contents(image: bytes) -> bytes:
    source = open_qcow2(BytesSource(image))
    return read_bytes(source, 0, source.size)


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("size", [0, 512, 32768, 32768 + 512, 100_000, SIZE - 512, SIZE])
def test_interrupted_at_every_write(size: int, *, snapshot: bool) -> None:
    start = filled(size, snapshot=snapshot)
    before = contents(bytes(start.data))
    rounded = -(-size // 512) * 512
    store = CrashingStore(bytes(start.data))
    end = shrink_qcow2(store, size)
    seen = set()
    for _, image in store.crashes(random.Random(size), each=4):
        assert_clean(MemoryStore(image))
        found = contents(image)
        assert found in (before, before[:rounded])
        seen.add(len(found))
    assert seen == {SIZE, rounded}
    cut = MemoryStore(bytes(store.data[:end]))
    assert_clean(cut)
    assert contents(bytes(cut.data)) == before[:rounded]


@pytest.mark.parametrize("refcount_bits", [8, 64])
def test_blocks_that_count_nothing_any_more_are_freed(refcount_bits: int) -> None:
    start = MemoryStore()
    create_qcow2(start, 3 << 20, cluster_size=CLUSTER, refcount_bits=refcount_bits)
    disk = open_qcow2_disk(start)
    disk.write(0, b"\xff" * (3 << 20))
    disk.flush()
    store = CrashingStore(bytes(start.data))
    shrink_qcow2(store, 1 << 20)
    for _, image in store.crashes(random.Random(refcount_bits), each=1):
        assert_clean(MemoryStore(image))
    blocks = refcount_blocks(store)
    assert len(blocks) < len(refcount_blocks(start))
    assert all(any(store.data[block : block + CLUSTER]) for block in blocks)


def refcount_blocks(store: MemoryStore) -> list[int]:
    header = read_header(store)
    table = store.data[header.refcount_table_offset :][: header.refcount_table_clusters * CLUSTER]
    return [offset for (offset,) in struct.iter_unpack(">Q", table) if offset]


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_emptied_and_interrupted(seed: int, *, snapshot: bool) -> None:
    start = filled(seed, snapshot=snapshot)
    before = contents(bytes(start.data))
    store = CrashingStore(bytes(start.data))
    end = empty_qcow2(store)
    for _, image in store.crashes(random.Random(seed), each=4):
        assert_clean(MemoryStore(image))
        assert contents(image) in (before, bytes(SIZE))
    cut = MemoryStore(bytes(store.data[:end]))
    assert_clean(cut)
    assert contents(bytes(cut.data)) == bytes(SIZE)
    assert (end < 10 * CLUSTER) != snapshot


def test_what_grows_again_reads_as_zero() -> None:
    store = filled(3)
    shrink_qcow2(store, 700)
    disk = open_qcow2_disk(store)
    disk.grow(SIZE)
    disk.flush()
    assert read_bytes(disk, 1024, SIZE - 1024) == bytes(SIZE - 1024)
    assert_clean(store)


def test_a_size_that_is_larger() -> None:
    store = filled(1)
    with pytest.raises(UnsupportedImageError, match="cannot shrink to"):
        shrink_qcow2(store, SIZE + 1)


@pytest.mark.parametrize("act", [lambda store: shrink_qcow2(store, 512), empty_qcow2])
def test_a_file_is_not_cut_beyond_its_end(act: Callable[[MemoryStore], int]) -> None:
    """Some cluster after the end is counted as used, as a machine that stops leaves it."""
    store = filled(2, snapshot=True)
    shrink_qcow2(store, 20_000)  # so that there are free clusters
    header = read_header(store)
    block = int.from_bytes(store.data[header.refcount_table_offset :][:8], "big")
    store.data[block + 2 * (store.size // CLUSTER + 5) + 1] = 1
    assert act(store) == store.size


def test_images_that_lie() -> None:
    image = bytes(filled(2, snapshot=True).data)
    rng = random.Random(4)
    refused = 0
    for _ in range(300):
        lying = MemoryStore(image)
        for _ in range(rng.randrange(1, 4)):
            lying.data[rng.randrange(CLUSTER if rng.random() < 0.3 else len(image))] = rng.randrange(256)
        try:
            shrink_qcow2(lying, 40_000)
        except DiskImageError:
            refused += 1
        else:
            check_qcow2(BytesSource(bytes(lying.data)))
    assert refused > 20


@pytest.mark.parametrize("full", [False, True])
def test_preallocated_clusters_read_as_zero_where_others_were(*, full: bool) -> None:
    """Clusters that were free in the file, or lie after its counted end, hold old bytes."""
    store = filled(2)
    shrink_qcow2(store, 512)
    store.write(store.size, b"\xee" * (40 * CLUSTER))
    disk = open_qcow2_disk(store)
    disk.grow(SIZE)
    disk.preallocate(512, SIZE - 512, full=full)
    disk.flush()
    assert_clean(store)
    assert contents(bytes(store.data))[512:] == bytes(SIZE - 512)
    stored = list(open_qcow2(BytesSource(bytes(store.data))).extents())
    assert stored[-1] in (Extent(0, SIZE, Kind.DATA), Extent(512, SIZE - 512, Kind.DATA))
