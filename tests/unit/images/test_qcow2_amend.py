# SPDX-License-Identifier: MIT
"""Options are changed by one write of the header each: interrupted at every write, and with invalid images."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pydiskimg.errors import DiskImageError, InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.snapshots import snapshot_entries
from pydiskimg.images.qcow2.switch.features import downgrade, set_lazy_refcounts, upgrade
from pydiskimg.images.qcow2.switch.refcount_width import change_refcount_width
from pydiskimg.images.qcow2.switch.snapshots import apply_snapshot, delete_snapshot, take_snapshot
from pydiskimg.images.qcow2.switch.zero_clusters import store_zero_clusters
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_disks import CLUSTER, assert_clean
from tests.fixtures.qcow2_images import BytesSource, Craft
from tests.fixtures.stores import CrashingStore, MemoryStore

SIZE = 4 * 32768  # what four L2 tables map
BACKING = BytesSource(b"\x5a" * SIZE)

Change = Callable[[MemoryStore], None]


def filled(seed: int, *, version: int = 3, backed: bool = False) -> MemoryStore:
    """An image with data, zeros and two snapshots that share some of it."""
    store = MemoryStore()
    names = (b"base", b"raw") if backed else (b"", b"")
    create_qcow2(store, SIZE, backing_file=names[0], backing_format=names[1], cluster_size=CLUSTER, version=version)
    rng = random.Random(seed)
    for number in range(3):
        disk = open_qcow2_disk(store, backing=BACKING if backed else None)
        for _ in range(4):
            start = rng.randrange(SIZE - 20 * CLUSTER)
            disk.write(start, rng.randbytes(rng.randrange(1, 6 * CLUSTER)))
            disk.zero(rng.randrange(SIZE - 20 * CLUSTER), rng.randrange(1, 12 * CLUSTER))
        disk.flush()
        if number < 2:
            take_snapshot(store, f"s{number}", now_ns=0)
    if not backed and version == 3:
        mark_zero(store, rng)
    return store


def mark_zero(store: MemoryStore, rng: random.Random) -> None:
    """Some clusters of the disk are zero and keep their host offset, as QEMU leaves them."""
    header = read_header(store)
    for index in range(header.l1_size):
        at = header.l1_table_offset + 8 * index
        table = int.from_bytes(store.data[at : at + 8], "big") & layout.ENTRY_OFFSET
        for number in range(CLUSTER // 8) if table else ():
            if store.data[table + 8 * number + 6] and rng.random() < 0.3:
                store.data[table + 8 * number + 7] |= layout.L2_ZERO


def shown(image: bytes) -> list[bytes]:
    """The disk and its snapshots."""
    file = BytesSource(image)
    header = read_header(file)
    backing = BACKING if header.backing_file else None
    names = [snapshot.id for snapshot, _ in snapshot_entries(file, header)]
    sources = [open_qcow2(file, backing=backing, snapshot=name) for name in (None, *names)]
    return [read_bytes(source, 0, source.size) for source in sources]


CHANGES: dict[str, tuple[Change, int, bool]] = {
    "wider": (lambda store: change_refcount_width(store, 64), 3, False),
    "narrower": (lambda store: change_refcount_width(store, 4), 3, False),
    "lazy": (lambda store: set_lazy_refcounts(store, lazy=True), 3, False),
    "upgrade": (upgrade, 2, False),
    "downgrade": (downgrade, 3, False),
    "downgrade with a backing file": (downgrade, 3, True),
    "zeros stored": (store_zero_clusters, 3, True),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CHANGES)
def test_interrupted_at_every_write(name: str, seed: int) -> None:
    change, version, backed = CHANGES[name]
    start = filled(seed, version=version, backed=backed)
    assert_clean(start)
    before = shown(bytes(start.data))
    store = CrashingStore(bytes(start.data))
    change(store)
    for _, image in store.crashes(random.Random(seed), each=3):
        assert_clean(MemoryStore(image))
        assert shown(image) == before
    assert store.data != start.data
    disk = open_qcow2_disk(store, backing=BACKING if backed else None)
    disk.write(1000, b"x" * 5000)
    disk.flush()
    assert_clean(store)
    assert shown(bytes(store.data))[1:] == before[1:]


def test_an_upgraded_image_names_the_features() -> None:
    """As a new one of that version does, also to a program that knows none of them."""
    stores = MemoryStore(), MemoryStore()
    for store, version in zip(stores, (3, 2), strict=True):
        create_qcow2(store, 1 << 20, cluster_size=4096, version=version)
    upgrade(stores[1])
    new, upgraded = (read_header(store).extensions for store in stores)
    assert upgraded == new
    assert layout.EXTENSION_FEATURE_NAMES in new


@pytest.mark.parametrize("seed", range(6))
def test_every_width_after_every_other(seed: int) -> None:
    store = filled(seed)
    before, rng = shown(bytes(store.data)), random.Random(seed)
    for bits in rng.sample([2, 4, 8, 16, 32, 64], 6):
        change_refcount_width(store, bits)
        assert read_header(store).refcount_bits == bits
        assert_clean(store)
    assert shown(bytes(store.data)) == before


def test_a_count_that_has_no_room() -> None:
    store = filled(1)
    before = bytes(store.data)
    with pytest.raises(UnsupportedImageError, match=r"has 3 references, and counts of 1 bits are at most 1"):
        change_refcount_width(store, 1)
    assert store.data == before


def test_an_image_that_counts_nothing() -> None:
    """Its refcount table has no block; the fuzzer found that none was looked for all the same."""
    store = MemoryStore(Craft(l2=[[1 << 63 | 0x800]], data=bytes(512)).build())
    before = bytes(store.data)
    with pytest.raises(
        InvalidImageError, match="the cluster at 0x200 holds reference counts, but its own count is not 1"
    ):
        change_refcount_width(store, 64)
    assert read_header(store).refcount_bits == 16
    assert bytes(store.data[: len(before)]) == before


def test_clusters_that_become_the_disks_alone_are_flagged() -> None:
    """A host cluster that a snapshot's zero cluster shares with the disk's data."""
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=CLUSTER)
    disk = open_qcow2_disk(store)
    disk.write(0, b"a" * CLUSTER)
    disk.flush()
    take_snapshot(store, "data", now_ns=0)
    disk = open_qcow2_disk(store)
    disk.write(9 * CLUSTER, b"b" * CLUSTER)  # the table becomes the disk's own
    disk.flush()
    header = read_header(store)
    table = int.from_bytes(store.data[header.l1_table_offset :][:8], "big") & layout.ENTRY_OFFSET
    store.data[table + 7] |= layout.L2_ZERO  # and keeps the cluster of the snapshot's, as QEMU does
    take_snapshot(store, "zero", now_ns=0)
    apply_snapshot(store, "data")
    delete_snapshot(store, "data")
    assert_clean(store)
    before = shown(bytes(store.data))
    downgrade(store)
    assert_clean(store)
    assert shown(bytes(store.data)) == before


@pytest.mark.parametrize("name", CHANGES)
def test_images_that_lie(name: str) -> None:
    change, version, backed = CHANGES[name]
    image = bytes(filled(2, version=version, backed=backed).data)
    rng = random.Random(4)
    refused = 0
    for _ in range(40):
        lying = MemoryStore(image)
        for _ in range(rng.randrange(1, 4)):
            lying.data[rng.randrange(CLUSTER if rng.random() < 0.3 else len(image))] = rng.randrange(256)
        try:
            change(lying)
        except DiskImageError:
            refused += 1
        else:
            check_qcow2(BytesSource(bytes(lying.data)))
    assert refused
