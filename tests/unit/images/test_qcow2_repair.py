# SPDX-License-Identifier: MIT
"""A qcow2 image is repaired: counts and flags of every kind made wrong, interrupted at every write, and left alone."""

from __future__ import annotations

import os
import random
from array import array
from pathlib import Path

import pytest

from pydiskimg.disks.store import GrowingFile
from pydiskimg.errors import DiskImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.repair.counts import RebuiltRefcounts
from pydiskimg.images.qcow2.repair.image import repair_qcow2
from pydiskimg.images.qcow2.repair.rebuild import with_right_flags
from pydiskimg.images.qcow2.snapshots import read_snapshots
from pydiskimg.images.qcow2.switch.bitmaps import change_bitmaps
from pydiskimg.images.qcow2.switch.snapshots import take_snapshot
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.images.qcow2.write.refcount_entries import RefcountEntries
from pydiskimg.protocols import read_bytes
from tests.fixtures.bitmap_models import bits_of
from tests.fixtures.qcow2_disks import CLUSTER, assert_clean
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import CrashingStore, MemoryStore

SIZE = 4 * 32768


def sound(seed: int, *, refcount_bits: int = 16) -> MemoryStore:
    """Compressed and other clusters, a snapshot where counts have room for one, and a bitmap."""
    rng = random.Random(seed)
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=CLUSTER, refcount_bits=refcount_bits)
    for number in range(3):
        disk = open_qcow2_disk(store, compress=number == 0 and refcount_bits > 2)
        for _ in range(4):
            disk.write(rng.randrange(SIZE - 9000), rng.randbytes(2000) + bytes(range(256)) * 20)
        disk.flush()
        if number == 1 and refcount_bits > 1:
            take_snapshot(store, "kept", now_ns=0)
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"changes", 512))
    change_bitmaps(store, lambda bitmaps: bitmaps.contents(b"changes").set_range(5000, 50000))
    assert_clean(store)
    return store


def shown(image: bytes) -> list[object]:
    """All that the image has to go on showing."""
    file = BytesSource(image)
    names = [None, *(snapshot.name for snapshot in read_snapshots(file, read_header(file)))]
    sources = [open_qcow2(BytesSource(image), snapshot=name) for name in names]
    return [*(read_bytes(source, 0, source.size) for source in sources), bits_of(image)]


def with_wrong_counts(store: MemoryStore, rng: random.Random, changes: int, *, only_higher: bool = False) -> None:
    header = read_header(store)
    entries = RefcountEntries(header.refcount_order)
    table = store.data[header.refcount_table_offset :][:8]
    at = int.from_bytes(table, "big")
    block = bytearray(store.data[at : at + CLUSTER])
    used = min(store.size // CLUSTER, entries.per_block(CLUSTER))
    for _ in range(changes):
        index = rng.randrange(used)
        old = entries.get(block, index)
        wanted = [value for value in (0, 1, 2, 5) if value <= entries.largest and (value > old or not only_higher)]
        if wanted:
            entries.put(block, index, rng.choice(wanted))
    store.write(at, block)


def with_wrong_flags(store: MemoryStore, rng: random.Random, changes: int) -> None:
    header = read_header(store)
    l1 = range(header.l1_table_offset, header.l1_table_offset + header.l1_size * 8, 8)
    tables = [int.from_bytes(store.data[at : at + 8], "big") & layout.ENTRY_OFFSET for at in l1]
    entries = [*l1, *(at for table in tables if table for at in range(table, table + CLUSTER, 8))]
    used = [at for at in entries if any(store.data[at : at + 8]) and not store.data[at] & 0x40]
    for at in rng.sample(used, changes):
        store.data[at] ^= 0x80


@pytest.mark.parametrize("refcount_bits", [1, 2, 4, 8, 16, 32, 64])
def test_counts_and_flags_of_every_width(refcount_bits: int) -> None:
    start = sound(refcount_bits, refcount_bits=refcount_bits)
    before = shown(bytes(start.data))
    rng = random.Random(refcount_bits)
    for number in range(4):
        store = MemoryStore(bytes(start.data))
        with_wrong_counts(store, rng, 5 * number)
        with_wrong_flags(store, rng, 8 - 2 * number)
        done = repair_qcow2(store)
        assert not done.refusal
        assert done.corruptions_fixed == done.found.corruptions > 0
        assert_clean(store)
        assert shown(bytes(store.data)) == before


@pytest.mark.parametrize("seed", range(4))
def test_an_interruption_leaves_the_image_as_it_was_or_repaired(seed: int) -> None:
    rng = random.Random(seed)
    start = sound(seed)
    before = shown(bytes(start.data))
    with_wrong_counts(start, rng, 12)
    with_wrong_flags(start, rng, 4)
    change_header(start, incompatible_features=layout.INCOMPATIBLE_DIRTY)
    store = CrashingStore(bytes(start.data))
    found = repair_qcow2(store).found
    seen = set()
    for _, image in store.crashes(rng, each=4):
        result = check_qcow2(BytesSource(image))
        assert (result.corruptions, result.leaks) in ((found.corruptions, found.leaks), (0, 0))
        assert read_header(BytesSource(image)).dirty or result.is_clean
        assert shown(image) == before
        seen.add((result.is_clean, read_header(BytesSource(image)).dirty))
    assert seen == {(False, True), (True, True), (True, False)}


@pytest.mark.parametrize("only_leaks", [True, False])
def test_leaks_go_one_by_one_and_the_file_stays_as_long(*, only_leaks: bool) -> None:
    rng = random.Random(7)
    start = sound(7)
    before = shown(bytes(start.data))
    start.write(start.size + 30 * CLUSTER - 1, b"\0")
    header = read_header(start)
    block = int.from_bytes(start.data[header.refcount_table_offset :][:8], "big")
    for cluster in rng.sample(range(start.size // CLUSTER - 30, start.size // CLUSTER), 9):
        start.data[block + 2 * cluster + 1] = rng.randrange(1, 4)
    store = CrashingStore(bytes(start.data))
    done = repair_qcow2(store, only_leaks=only_leaks)
    assert (done.leaks_fixed, done.corruptions_fixed, store.size) == (9, 0, start.size)
    assert_clean(store)
    fewer = set()
    for _, image in store.crashes(rng, each=6):
        result = check_qcow2(BytesSource(image))
        assert not result.corruptions
        fewer.add(result.leaks)
        assert shown(image) == before
    assert {0, 9} < fewer


def test_a_leak_that_hides_a_flag() -> None:
    """What is referred to once from now on gets the copied flag at the same time."""
    store = sound(3)
    before = shown(bytes(store.data))
    header = read_header(store)
    table = int.from_bytes(store.data[header.l1_table_offset :][:8], "big") & layout.ENTRY_OFFSET
    block = int.from_bytes(store.data[header.refcount_table_offset :][:8], "big")
    entries = ((at, int.from_bytes(store.data[at : at + 8], "big")) for at in range(table, table + CLUSTER, 8))
    at, entry = next((at, entry) for at, entry in entries if entry & layout.COPIED)
    store.data[at] ^= 0x80
    store.data[block + 2 * ((entry & layout.ENTRY_OFFSET) // CLUSTER) + 1] = 3
    done = repair_qcow2(store, only_leaks=True)
    assert (done.found.leaks, done.found.corruptions, done.leaks_fixed) == (1, 0, 1)
    assert_clean(store)
    assert shown(bytes(store.data)) == before


def test_only_leaks_changes_nothing_where_counts_have_to_be_rebuilt() -> None:
    store = sound(5)
    with_wrong_counts(store, random.Random(5), 20)
    kept = bytes(store.data)
    done = repair_qcow2(store, only_leaks=True)
    assert done.found is done.left
    assert done.found.needs_rebuild
    assert bytes(store.data) == kept


@pytest.mark.parametrize("mark", [layout.INCOMPATIBLE_DIRTY, layout.INCOMPATIBLE_CORRUPT])
def test_a_sound_image_loses_its_mark(mark: int) -> None:
    store = sound(1)
    change_header(store, incompatible_features=mark)
    assert repair_qcow2(store, only_leaks=True).found.is_clean
    assert not read_header(store).incompatible_features


def test_no_refcounts_at_all() -> None:
    """The refcount table, its blocks and where they are: nothing of them is needed."""
    for fields in ({"refcount_table_offset": 1 << 40}, {"refcount_table_offset": CLUSTER * 3}, {}):
        store = sound(2)
        before = shown(bytes(store.data))
        header = read_header(store)
        if fields:
            change_header(store, **fields)
        else:
            store.write(header.refcount_table_offset, random.Random(1).randbytes(CLUSTER))
        assert repair_qcow2(store).corruptions_fixed > 0
        assert_clean(store)
        assert shown(bytes(store.data)) == before


def test_entries_that_nothing_depends_on() -> None:
    """The copied flag of compressed clusters, and an offset of zeros that is none, also in what a snapshot shares."""
    store = sound(10)
    before = shown(bytes(store.data))
    header = read_header(store)
    l1 = range(header.l1_table_offset, header.l1_table_offset + header.l1_size * 8, 8)
    tables = [int.from_bytes(store.data[at : at + 8], "big") & layout.ENTRY_OFFSET for at in l1]
    entries = [at for table in tables if table for at in range(table, table + CLUSTER, 8)]
    compressed = [at for at in entries if store.data[at] & 0x40]
    assert compressed
    for at in compressed:
        store.data[at] |= 0x80
    start = bytes(store.data)
    crashing = CrashingStore(start)
    done = repair_qcow2(crashing)
    assert done.corruptions_fixed == done.found.corruptions >= len(compressed)
    for _, image in crashing.crashes(random.Random(1), each=3):
        assert check_qcow2(BytesSource(image)).corruptions <= done.found.corruptions
        assert shown(image) == before
    assert_clean(crashing)


def test_an_offset_of_zeros() -> None:
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=4096)
    disk = open_qcow2_disk(store)
    disk.write(0, b"data" * 5000)
    disk.flush()
    header = read_header(store)
    table = int.from_bytes(store.data[header.l1_table_offset :][:8], "big") & layout.ENTRY_OFFSET
    for index, wrong in ((9, 0x401), (10, 1 << 40 | 0x601)):
        store.data[table + 8 * index : table + 8 * index + 8] = wrong.to_bytes(8, "big")
    done = repair_qcow2(store)
    assert done.corruptions_fixed == done.found.corruptions > 2
    assert_clean(store)
    assert _first(store) == (b"data" * 5000).ljust(SIZE, b"\0")


def test_a_table_that_is_data_as_well() -> None:
    """Found by tests/fuzz: a table that moves leaves its old cluster to the data, which needs the flag then."""
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=CLUSTER)
    disk = open_qcow2_disk(store)
    disk.write(0, random.Random(1).randbytes(SIZE))
    disk.flush()
    header = read_header(store)
    l1 = range(header.l1_table_offset, header.l1_table_offset + header.l1_size * 8, 8)
    tables = [int.from_bytes(store.data[at : at + 8], "big") & layout.ENTRY_OFFSET for at in l1]
    for at, table in zip((tables[0] + 40, tables[2] + 80), (tables[2], tables[3]), strict=True):
        store.data[at : at + 8] = (table | layout.COPIED).to_bytes(8, "big")
    for table in tables:
        store.data[table + 160] ^= 0x80
    before = _first(store)
    repair_qcow2(store)
    assert_clean(store)
    assert _first(store) == before


def _first(store: MemoryStore) -> bytes:
    source = open_qcow2(BytesSource(bytes(store.data)))
    return read_bytes(source, 0, source.size)


def test_a_file_that_is_mostly_a_hole(tmp_path: Path) -> None:
    """Or a block device: what is new goes after what is in use, and not after the end."""
    fd = os.open(tmp_path / "long.qcow2", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, sound(1, refcount_bits=64).data, 0)
        os.pwrite(fd, bytes(8), read_header(GrowingFile(fd, "long.qcow2")).refcount_table_offset)
        os.ftruncate(fd, 1 << 33)
        store = GrowingFile(fd, "long.qcow2")
        assert repair_qcow2(store).left.is_clean
        assert store.size == 1 << 33
        assert os.fstat(fd).st_blocks * 512 < 2 << 20
    finally:
        os.close(fd)


def test_more_clusters_than_a_table_can_count() -> None:
    store = sound(1, refcount_bits=64)
    with pytest.raises(UnsupportedImageError, match="no refcount table counts so many clusters of 512 bytes"):
        RebuiltRefcounts(store, read_header(store), 1 << 27, spare=1)


def test_a_damaged_table_is_left_alone() -> None:
    """What seems to be leaked is what the damaged entry named."""
    store = sound(4)
    header = read_header(store)
    store.data[header.l1_table_offset + 7] |= 1
    store.data[header.l1_table_offset] |= 0x10
    kept = bytes(store.data)
    for only_leaks in (True, False):
        done = repair_qcow2(store, only_leaks=only_leaks)
        assert "beyond repair: a table is damaged, and freeing what it named could lose data" in done.refusal
        assert done.left.corruptions
    assert bytes(store.data) == kept


def test_bitmaps_of_a_program_without_bitmaps_go() -> None:
    store = sound(6)
    change_header(store, autoclear_features=0)
    with_wrong_flags(store, random.Random(6), 3)
    repair_qcow2(store)
    assert_clean(store)
    assert layout.EXTENSION_BITMAPS not in read_header(store).extensions


@pytest.mark.parametrize("only_leaks", [False, True])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_autoclear_bits_of_other_programs_go_before_clusters_do(is_damaged: bool, only_leaks: bool) -> None:
    """What seems leaked may be what such a bit is for, so it must not promise that any longer."""
    store = sound(7)
    if is_damaged:
        with_wrong_counts(store, random.Random(7), 8, only_higher=True)
    change_header(store, autoclear_features=layout.AUTOCLEAR_BITMAPS | 1 << 63)
    repair_qcow2(store, only_leaks=only_leaks)
    assert_clean(store)
    assert read_header(store).autoclear_features == layout.AUTOCLEAR_BITMAPS


def test_images_that_lie() -> None:
    """Whatever is wrong: an error of ours, or an image that shows what it did; never a longer file than twice."""
    image = bytes(sound(8).data)
    rng = random.Random(8)
    outcomes = {"refused": 0, "left": 0, "repaired": 0}
    for _ in range(300):
        lying = MemoryStore(image)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(CLUSTER if rng.random() < 0.2 else len(image))
            lying.data[at] = rng.choice((0, 1, 128, 255, rng.randrange(256)))
        kept = bytes(lying.data)
        try:
            done = repair_qcow2(lying)
        except DiskImageError:
            outcomes["refused"] += 1
            continue
        if done.refusal:
            assert bytes(lying.data) == kept
        elif not done.found.is_clean:
            assert done.left.is_clean
            assert lying.size < 2 * len(image) + 64 * CLUSTER
        outcomes["left" if done.refusal else "repaired"] += 1
    assert min(outcomes.values()) > 10, outcomes


@pytest.mark.parametrize("refcount_order", range(7))
def test_flags_of_runs_are_those_of_single_entries(refcount_order: int) -> None:
    """Clusters in a row get their flags together where each is counted once, and one by one elsewhere."""
    rng = random.Random(refcount_order)
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=CLUSTER, refcount_bits=1 << refcount_order)
    end = 6000  # clusters, in several refcount blocks
    counts = RebuiltRefcounts(store, header := read_header(store), end, spare=1)
    stored = array("H", [1]) * end
    for _ in range(40):
        stored[rng.randrange(end)] = 0
    counts.count(0, stored.tobytes())
    words, expected = array("Q"), array("Q")
    while len(words) < 4000:
        first, count = rng.randrange(1, end - 300), rng.choice((1, 5, 12, 40, 300))
        flags = rng.choice((0, layout.COPIED, layout.L2_ZERO, layout.L2_COMPRESSED, layout.L2_COMPRESSED | 1 << 63))
        for cluster in range(first, first + count):
            entry = cluster * CLUSTER | flags
            is_copied = stored[cluster] == 1 and not entry & layout.L2_COMPRESSED
            words.append(entry)
            expected.append(entry & ~layout.COPIED | layout.COPIED * is_copied)
        words.append(0)
        expected.append(0)
    assert with_right_flags(words, header, counts) == expected
