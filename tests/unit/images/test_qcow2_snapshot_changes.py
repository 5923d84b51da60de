# SPDX-License-Identifier: MIT
"""Snapshots of a qcow2 image, taken, applied and deleted: against a model, and interrupted at every write."""

from __future__ import annotations

import random

import pytest

from pydiskimg.errors import DiskImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.snapshots import Snapshot, read_snapshots
from pydiskimg.images.qcow2.switch.bitmaps import change_bitmaps
from pydiskimg.images.qcow2.switch.snapshots import apply_snapshot, delete_snapshot, take_snapshot
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.protocols import read_bytes
from tests.fixtures.bitmap_models import bits_of
from tests.fixtures.qcow2_disks import CLUSTER, assert_clean, new_disk
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import CrashingStore, MemoryStore

SIZE = 3 * 32768 + 1024  # a little more than three L2 tables map
NOW = 1_700_000_000_123_456_789

States = dict[str, bytes]


def states_of(image: bytes) -> States:
    """The disk, under no name, and its snapshots."""
    file = BytesSource(image)
    names = [snapshot.name for snapshot in read_snapshots(file, read_header(file))]
    found = {"": open_qcow2(BytesSource(image))}
    found |= {name: open_qcow2(BytesSource(image), snapshot=name) for name in names}
    return {name: read_bytes(source, 0, source.size) for name, source in found.items()}


def write_something(store: MemoryStore, rng: random.Random) -> None:
    disk = open_qcow2_disk(store, compress=rng.random() < 0.4)
    for _ in range(rng.randrange(1, 6)):
        start = rng.randrange(disk.size)
        length = min(disk.size - start, rng.randrange(1, 12 * CLUSTER))
        if rng.random() < 0.3:
            disk.zero(start, length)
        else:
            disk.write(start, rng.choice((rng.randbytes(length), bytes([rng.randrange(256)]) * length)))
    disk.flush()


def change(store: MemoryStore, rng: random.Random, expected: States) -> None:
    """Take, apply or delete one, also in expected."""
    names = [name for name in expected if name]
    action = rng.choice(("take", "apply", "delete")) if names else "take"
    if action == "take":
        name = f"snapshot {rng.randrange(1 << 40)}"
        assert take_snapshot(store, name, now_ns=NOW).name == name
        expected[name] = expected[""]
    elif action == "apply":
        name = rng.choice(names)
        apply_snapshot(store, name)
        expected[""] = expected[name]
    else:
        name = rng.choice(names)
        delete_snapshot(store, name)
        del expected[name]


@pytest.mark.parametrize("seed", range(6))
def test_a_long_life(seed: int) -> None:
    """Nothing is lost and nothing leaks, however often clusters are shared, written and let go."""
    rng = random.Random(seed)
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=CLUSTER, version=2 + seed % 2)
    expected = {"": bytes(SIZE // 512 * 512)}
    for _ in range(30):
        if rng.random() < 0.5:
            write_something(store, rng)
            expected[""] = states_of(bytes(store.data))[""]
        change(store, rng, expected)
        assert_clean(store)
        assert states_of(bytes(store.data)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_a_machine_that_stops_leaves_the_old_or_the_new_image(seed: int) -> None:
    """At every flush, and with any of the writes before it: not even a cluster leaks."""
    rng = random.Random(seed)
    data = MemoryStore()
    create_qcow2(data, SIZE, cluster_size=CLUSTER)
    for _ in range(8):
        write_something(data, rng)
        before = states_of(bytes(data.data))
        store = CrashingStore(bytes(data.data))
        after = dict(before)
        change(store, rng, after)
        for _, image in store.crashes(rng, each=3):
            assert_clean(MemoryStore(image))
            assert states_of(image) in (before, after)
        data = MemoryStore(bytes(store.data))


def test_taking_and_deleting_again_does_not_make_the_file_longer() -> None:
    store, disk = new_disk(SIZE)
    disk.write(0, random.Random(1).randbytes(40000))
    disk.flush()
    sizes = set()
    for _ in range(12):
        take_snapshot(store, "again", now_ns=NOW)
        delete_snapshot(store, "again")
        sizes.add(store.size)
    assert max(sizes) - min(sizes) < 16 * CLUSTER
    assert_clean(store)


def test_what_a_snapshot_says_of_itself() -> None:
    store, _ = new_disk(SIZE)
    assert take_snapshot(store, "first", now_ns=NOW).id == "1"
    take_snapshot(store, "second", now_ns=NOW)
    delete_snapshot(store, "first")
    assert take_snapshot(store, "second", now_ns=NOW).id == "3"
    file = BytesSource(bytes(store.data))
    first, second = read_snapshots(file, read_header(file))
    assert (first.id, first.name, second.id, second.name) == ("2", "second", "3", "second")
    assert (second.date_sec, second.date_nsec) == divmod(NOW, 1_000_000_000)
    assert (second.disk_size, second.vm_state_size, second.icount) == (SIZE, 0, 0)


def test_an_id_is_not_a_name_when_a_snapshot_is_deleted() -> None:
    store, _ = new_disk(SIZE)
    for name in ("2", "1"):
        take_snapshot(store, name, now_ns=NOW)
    assert delete_snapshot(store, "1").id == "2"
    with pytest.raises(UnsupportedImageError, match=r"'1'; expected the name, in brackets, of: '1' \('2'\)"):
        delete_snapshot(store, "1")


def test_a_snapshot_brings_its_size_back() -> None:
    store, disk = new_disk(SIZE)
    disk.write(0, b"before")
    disk.flush()
    take_snapshot(store, "small", now_ns=NOW)
    grown = open_qcow2_disk(store)
    grown.grow(1 << 20)
    grown.write((1 << 20) - 5, b"after")
    grown.flush()
    apply_snapshot(store, "small")
    assert_clean(store)
    assert states_of(bytes(store.data))[""] == b"before".ljust(SIZE, b"\0")


def test_counts_of_one_bit_have_no_room_for_a_snapshot() -> None:
    store, disk = new_disk(SIZE)
    disk.write(0, b"x" * 5000)
    disk.flush()
    narrow = MemoryStore(_with_one_bit(bytes(store.data)))
    assert_clean(narrow)
    kept = bytes(narrow.data)
    with pytest.raises(UnsupportedImageError, match=r"1 references.*1 bits count no more"):
        take_snapshot(narrow, "one", now_ns=NOW)
    assert_clean(narrow)
    assert states_of(bytes(narrow.data)) == states_of(kept)


def _with_one_bit(image: bytes) -> bytes:
    """The image with its one refcount block rewritten with entries of one bit."""
    header = read_header(BytesSource(image))
    block = int.from_bytes(image[header.refcount_table_offset : header.refcount_table_offset + 8], "big")
    counts = image[block + 1 : block + CLUSTER : 2]
    bits = sum(bool(count) << number for number, count in enumerate(counts))
    store = MemoryStore(image)
    store.write(block, bits.to_bytes(CLUSTER, "little"))
    change_header(store, refcount_order=0)
    return bytes(store.data)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 65536])
def test_a_name_that_cannot_be(name: str) -> None:
    store, _ = new_disk(SIZE)
    kept = bytes(store.data)
    with pytest.raises(UnsupportedImageError, match="a snapshot's name has 1 to 65535 bytes"):
        take_snapshot(store, name, now_ns=NOW)
    assert read_snapshots(BytesSource(bytes(store.data)), read_header(BytesSource(kept))) == []


def test_one_that_does_not_exist() -> None:
    store, _ = new_disk(SIZE)
    for act in (apply_snapshot, delete_snapshot):
        with pytest.raises(UnsupportedImageError, match="has no snapshot 'gone'"):
            act(store, "gone")


@pytest.mark.parametrize(
    ("field", "bit", "said"),
    [
        ("incompatible_features", layout.INCOMPATIBLE_DIRTY, "not closed by its last writer"),
        ("incompatible_features", layout.INCOMPATIBLE_CORRUPT, "is marked corrupt"),
        ("incompatible_features", layout.INCOMPATIBLE_DATA_FILE, "has an external data file"),
        ("crypt_method", layout.CRYPT_AES, "is encrypted with AES"),
    ],
)
def test_an_image_that_is_not_changed(field: str, bit: int, said: str) -> None:
    store, _ = new_disk(SIZE)
    change_header(store, **{field: bit})
    kept = bytes(store.data)
    with pytest.raises(UnsupportedImageError, match=said):
        take_snapshot(store, "one", now_ns=NOW)
    assert bytes(store.data) == kept


def test_bitmaps_stay_and_forbid_applying() -> None:
    """As QEMU does: bitmaps could not tell what applying changes."""
    store, _ = new_disk(SIZE)
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"changes", 512))
    change_header(store, autoclear_features=layout.AUTOCLEAR_BITMAPS | 1 << 40)
    for name in ("one", "two"):
        take_snapshot(store, name, now_ns=NOW)
    with pytest.raises(UnsupportedImageError, match="has dirty bitmaps, which cannot record the changes"):
        apply_snapshot(store, "one")
    delete_snapshot(store, "one")
    assert read_header(store).autoclear_features == layout.AUTOCLEAR_BITMAPS
    assert bits_of(bytes(store.data)) == {b"changes": (512, True, frozenset())}
    assert_clean(store)


def test_images_that_lie_are_refused_or_changed() -> None:
    """Any byte of the tables may be wrong: an error of ours, or a change; the snapshots' functions end either way."""
    store, disk = new_disk(SIZE)
    rng = random.Random(9)
    for name in ("one", "two"):
        disk = open_qcow2_disk(store, compress=name == "two")
        disk.write(rng.randrange(20000), rng.randbytes(9000))
        disk.flush()
        take_snapshot(store, name, now_ns=NOW)
    image = bytes(store.data)
    tables = [at for at in range(len(image)) if (image[at] and at < CLUSTER) or image[at] == 0x80]
    refused = 0
    for _ in range(400):
        lying = MemoryStore(image)
        for _ in range(rng.randrange(1, 4)):
            lying.data[rng.choice(tables) if rng.random() < 0.7 else rng.randrange(len(image))] = rng.randrange(256)
        try:
            rng.choice((_take, _apply, _delete))(lying)
        except DiskImageError:
            refused += 1
        else:
            check_qcow2(BytesSource(bytes(lying.data)))
    assert refused > 40


def _take(store: MemoryStore) -> Snapshot:
    return take_snapshot(store, "x", now_ns=NOW)


def _apply(store: MemoryStore) -> Snapshot:
    return apply_snapshot(store, "1")


def _delete(store: MemoryStore) -> Snapshot:
    return delete_snapshot(store, "two")
