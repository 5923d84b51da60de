# SPDX-License-Identifier: MIT
"""A virtual disk is enlarged by one write of the header, if that is enough."""

from __future__ import annotations

import pytest

from pydiskimg.images.qcow2.bitmap_set import BitmapSet
from pydiskimg.images.qcow2.header import Header, read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.switch.bitmaps import change_bitmaps
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.images.qcow2.write.grow import grow_by_header
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_disks import assert_clean
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import CrashingStore, MemoryStore

CLUSTER = 512
SPAN = CLUSTER // 8 * CLUSTER  # what an L2 table maps


def new_store(size: int, *, written: int | None = None, version: int = 3) -> CrashingStore:
    """An image of a disk of size bytes, with something at the offset written."""
    made = MemoryStore()
    create_qcow2(made, size, cluster_size=CLUSTER, version=version)
    if written is not None:
        disk = open_qcow2_disk(made)
        disk.write(written, b"x" * CLUSTER)
        disk.flush()
    return CrashingStore(bytes(made.data))


def grown(store: CrashingStore, size: int) -> bool:
    return grow_by_header(store, header_of(store), size)


def header_of(store: MemoryStore) -> Header:
    return read_header(BytesSource(bytes(store.data)))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("old", "written"), [(SPAN + CLUSTER, None), (SPAN + CLUSTER, 0), (SPAN + 100 * 4, 7 * CLUSTER)]
)
def test_the_header_alone_is_written(version: int, old: int, written: int | None) -> None:
    store = new_store(old, written=written, version=version)
    before = read_bytes(open_qcow2(BytesSource(bytes(store.data))), 0, header_of(store).size)
    assert grown(store, 2 * SPAN)
    assert [[offset for offset, _ in epoch] for epoch in store.epochs if epoch] == [[0]]
    assert store.epochs[-1] == []  # durable
    assert_clean(store)
    after = open_qcow2(BytesSource(bytes(store.data)))
    assert read_bytes(after, 0, after.size) == before.ljust(2 * SPAN, b"\0")


def test_bits_that_only_others_keep_right_are_cleared_by_the_same_write() -> None:
    store = new_store(SPAN + CLUSTER)
    change_header(store, autoclear_features=1 << 5)
    store.epochs = [[]]
    assert grown(store, 2 * SPAN)
    assert header_of(store).autoclear_features == 0
    assert [len(epoch) for epoch in store.epochs] == [1, 0]


def test_what_takes_more_is_left_alone() -> None:
    longer_table = new_store(SPAN), 2 * SPAN
    hides = new_store(2 * SPAN - CLUSTER, written=SPAN), 2 * SPAN
    with_bitmap = new_store(SPAN + CLUSTER), 2 * SPAN

    def add(bitmaps: BitmapSet) -> None:
        bitmaps.add(b"one")

    change_bitmaps(with_bitmap[0], add)
    for store, size in (longer_table, hides, with_bitmap):
        content = bytes(store.data)
        assert not grown(store, size)
        assert bytes(store.data) == content


def test_a_table_that_maps_nothing_beyond_the_end_is_not_written() -> None:
    """A disk whose last L2 table holds data before the old end: that table stays as it is."""
    store = new_store(SPAN - 4 * CLUSTER, written=0)
    disk = open_qcow2_disk(store)
    store.epochs = [[]]
    disk.grow(3 * SPAN)
    disk.flush()
    table = int.from_bytes(read_bytes(store, header_of(store).l1_table_offset, 8), "big") & 0x00FF_FFFF_FFFF_FE00
    assert table not in [offset for epoch in store.epochs for offset, _ in epoch]
    assert_clean(store)
    source = open_qcow2(BytesSource(bytes(store.data)))
    assert read_bytes(source, 0, source.size) == (b"x" * CLUSTER).ljust(3 * SPAN, b"\0")


def test_clusters_beyond_the_old_end_that_are_mapped_are_hidden() -> None:
    store = new_store(SPAN, written=SPAN - CLUSTER)
    change_header(store, size=SPAN - 2 * CLUSTER)
    disk = open_qcow2_disk(store)
    disk.grow(2 * SPAN)
    disk.flush()
    source = open_qcow2(BytesSource(bytes(store.data)))
    assert read_bytes(source, 0, source.size) == bytes(2 * SPAN)
