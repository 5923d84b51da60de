# SPDX-License-Identifier: MIT
"""Changes of dirty bitmaps of a qcow2 image: against a model, interrupted at every write, and in invalid images."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pydiskimg.errors import DiskImageError, InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import bitmap_contents, layout
from pydiskimg.images.qcow2.bitmap_contents import read_table
from pydiskimg.images.qcow2.bitmap_set import BitmapSet
from pydiskimg.images.qcow2.bitmaps import AUTO, BITMAP_ENTRY, BITMAPS, IN_USE
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.switch.bitmaps import change_bitmaps
from pydiskimg.images.qcow2.switch.shrink import shrink_qcow2
from pydiskimg.images.qcow2.switch.snapshots import take_snapshot
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.protocols import read_bytes
from tests.fixtures.bitmap_models import Bits, bits_of
from tests.fixtures.qcow2_disks import CLUSTER, assert_clean, new_disk
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import CrashingStore, MemoryStore

SIZE = 5 * 512 * 8 * CLUSTER + 1536  # more than five clusters of bits at the smallest granularity


Change = Callable[[BitmapSet], object]


def make(store: MemoryStore, changes: list[Change]) -> None:
    """Make all changes at once."""

    def change(bitmaps: BitmapSet) -> None:
        for each in changes:
            each(bitmaps)

    change_bitmaps(store, change)


def change_something(rng: random.Random, model: Bits) -> Change:
    """Return a change of the bitmaps, which is made to model, too."""
    names = list(model)
    action = rng.choice(("add", "remove", "clear", "switch", "set", "set", "merge")) if names else "add"
    name = rng.choice(names) if names else b""
    granularity, is_enabled, bits = model.get(name, (0, False, frozenset()))
    if action == "add":
        name, granularity = b"%x" % rng.randrange(1 << 60) * rng.randrange(1, 60), 512 << rng.randrange(12)
        model[name] = granularity, True, frozenset()
        return lambda bitmaps: bitmaps.add(name, granularity)
    if action == "remove":
        del model[name]
        return lambda bitmaps: bitmaps.remove(name)
    if action == "clear":
        model[name] = granularity, is_enabled, frozenset()
        return lambda bitmaps: bitmaps.contents(name).clear()
    if action == "switch":
        model[name] = granularity, not is_enabled, bits
        return lambda bitmaps: bitmaps.enable(name, is_enabled=not is_enabled)
    if action == "set":
        start = rng.randrange(SIZE)
        end = min(SIZE, start + rng.choice((1, 512, 100_000, SIZE)))
        model[name] = granularity, is_enabled, bits | set(range(start // granularity, (end - 1) // granularity + 1))
        return lambda bitmaps: bitmaps.contents(name).set_range(start, end)
    other = rng.choice(names)
    size, _, others = model[other]
    both = set(bits)
    for bit in others:
        both.update(range(bit * size // granularity, (min(SIZE, (bit + 1) * size) - 1) // granularity + 1))
    model[name] = granularity, is_enabled, frozenset(both)
    return lambda bitmaps: bitmaps.merge(name, bitmaps.contents(other))


@pytest.mark.parametrize("seed", range(4))
def test_a_long_life(seed: int) -> None:
    """Each change does what it should, nothing leaks, and the guest's tables are not touched."""
    rng = random.Random(seed)
    store = MemoryStore()
    create_qcow2(store, SIZE, cluster_size=CLUSTER)
    model: Bits = {}
    for _ in range(25):
        make(store, [change_something(rng, model) for _ in range(rng.randrange(1, 4))])
        assert_clean(store)
        assert bits_of(bytes(store.data)) == model


@pytest.mark.parametrize("seed", range(4))
def test_a_machine_that_stops_leaves_the_old_or_the_new_bitmaps(seed: int) -> None:
    """At every flush, and with any of the writes before it: not even a cluster leaks."""
    rng = random.Random(seed)
    data = MemoryStore()
    create_qcow2(data, SIZE, cluster_size=CLUSTER)
    model: Bits = {}
    for _ in range(8):
        before = dict(model)
        changes = [change_something(rng, model) for _ in range(rng.randrange(1, 4))]
        store = CrashingStore(bytes(data.data))
        make(store, changes)
        for _, image in store.crashes(rng, each=3):
            assert_clean(MemoryStore(image))
            assert bits_of(image) in (before, model)
        data = MemoryStore(bytes(store.data))


def test_what_fails_changes_nothing() -> None:
    store = with_bitmaps(b"one")
    kept = bytes(store.data)

    def change(bitmaps: BitmapSet) -> None:
        bitmaps.remove(b"one")
        bitmaps.contents(b"one").clear()

    with pytest.raises(UnsupportedImageError, match="has no bitmap 'one'"):
        change_bitmaps(store, change)
    assert bytes(store.data) == kept


def with_bitmaps(*names: bytes, size: int = SIZE) -> MemoryStore:
    store, disk = new_disk(size)
    disk.write(0, b"data" * 1000)
    disk.flush()

    def change(bitmaps: BitmapSet) -> None:
        for number, name in enumerate(names):
            bitmaps.add(name, 512 << number)
            bitmaps.contents(name).set_range(number * 1000, number * 1000 + 300_000)

    change_bitmaps(store, change)
    return store


@pytest.mark.parametrize(
    ("name", "granularity", "said"),
    [
        (b"", None, "a bitmap's name has 1 to 1023 bytes; found 0"),
        (b"x" * 1024, None, "a bitmap's name has 1 to 1023 bytes; found 1024"),
        (b"one", None, "already exists"),
        (b"two", 256, "a granularity of 256 bytes is not possible"),
        (b"two", 513, "a granularity of 513 bytes is not possible"),
        (b"two", 4 << 30, "expected a power of two from 512 to 2147483648"),
    ],
)
def test_one_that_cannot_be(name: bytes, granularity: int | None, said: str) -> None:
    with pytest.raises(UnsupportedImageError, match=said):
        change_bitmaps(with_bitmaps(b"one"), lambda bitmaps: bitmaps.add(name, granularity))


def test_the_limits_are_possible() -> None:
    store = with_bitmaps(b"x" * 1023)
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"y", 2 << 30))
    assert [granularity for granularity, _, _ in bits_of(bytes(store.data)).values()] == [512, 2 << 30]


def test_no_more_than_65535() -> None:
    store = MemoryStore()
    create_qcow2(store, 1 << 20)
    bitmaps = BitmapSet(store, read_header(store))
    for number in range(5):
        bitmaps.add(b"%d" % number)
    bitmaps._bitmaps *= 65535 // 5
    with pytest.raises(UnsupportedImageError, match="at most 65535 bitmaps"):
        bitmaps.add(b"one more")


def test_a_disk_that_is_too_large_for_the_granularity() -> None:
    """A bitmap has 2^32 bits at most, the 512 MiB of QEMU."""
    store = MemoryStore()
    create_qcow2(store, (2 << 40) + 512)
    with pytest.raises(UnsupportedImageError, match="use a larger granularity"):
        change_bitmaps(store, lambda bitmaps: bitmaps.add(b"fine", 512))
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"coarse", 1024))
    shrink_qcow2(store, 2 << 40)
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"fine", 512))


def test_version_2_has_none() -> None:
    store = MemoryStore()
    create_qcow2(store, SIZE, version=2)
    with pytest.raises(UnsupportedImageError, match="version 2"):
        change_bitmaps(store, lambda bitmaps: bitmaps.add(b"one"))


def set_flags(store: MemoryStore, flags: int) -> None:
    directory = BITMAPS.unpack(read_header(store).extensions[layout.EXTENSION_BITMAPS])["bitmap_directory_offset"]
    BITMAP_ENTRY.put(store.data, {"flags": flags}, directory)


def test_one_that_is_in_use_can_only_be_removed() -> None:
    store = with_bitmaps(b"one", b"two")
    set_flags(store, IN_USE | AUTO)
    refused: list[Change] = [
        lambda bitmaps: bitmaps.contents(b"one").clear(),
        lambda bitmaps: bitmaps.enable(b"one"),
        lambda bitmaps: bitmaps.merge(b"one", bitmaps.contents(b"two")),
        lambda bitmaps: bitmaps.merge(b"two", bitmaps.contents(b"one")),
        lambda bitmaps: bitmaps.resize(512),
    ]
    for change in refused:
        with pytest.raises(UnsupportedImageError, match="'one' was not closed by its last writer"):
            make(store, [change])
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"three"))
    change_bitmaps(store, lambda bitmaps: bitmaps.remove(b"one"))
    assert_clean(store)
    assert list(bits_of(bytes(store.data))) == [b"two", b"three"]


def test_bitmaps_of_a_program_without_bitmaps_are_gone() -> None:
    store = with_bitmaps(b"one")
    change_header(store, autoclear_features=0)
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"one"))
    assert {name: len(bits) for name, (_, _, bits) in bits_of(bytes(store.data)).items()} == {b"one": 0}
    assert not check_qcow2(BytesSource(bytes(store.data))).corruptions


def test_the_last_one_takes_the_extension_along() -> None:
    store = with_bitmaps(b"one")
    change_bitmaps(store, lambda bitmaps: bitmaps.remove(b"one"))
    header = read_header(store)
    assert layout.EXTENSION_BITMAPS not in header.extensions
    assert not header.autoclear_features
    assert_clean(store)


def test_what_is_known_of_an_image_stays() -> None:
    store = with_bitmaps(b"one")
    change_header(store, autoclear_features=layout.AUTOCLEAR_BITMAPS | 1 << 40)
    before = read_header(store).extensions.keys()
    take_snapshot(store, "kept", now_ns=0)
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"two"))
    header = read_header(store)
    assert (header.autoclear_features, header.nb_snapshots) == (layout.AUTOCLEAR_BITMAPS, 1)
    assert header.extensions.keys() == before
    assert_clean(store)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_is_recorded_or_the_bitmaps_are_in_use(seed: int) -> None:
    """Whenever the machine stops: a bitmap that is not in use tells of all that differs."""
    rng = random.Random(seed)
    start = with_bitmaps(b"one", b"two")
    change_bitmaps(start, lambda bitmaps: bitmaps.contents(b"one").clear())
    before = _whole(bytes(start.data))
    store = CrashingStore(bytes(start.data))
    disk = open_qcow2_disk(store)
    for number in range(6):
        disk.write(rng.randrange(SIZE - 5000), rng.randbytes(rng.randrange(1, 5000)))
        if number == 2:
            disk.grow(SIZE + 512 * rng.randrange(1, 20000))
        if number % 2:
            disk.flush()
    recorded = set()
    for _, image in store.crashes(rng, each=3):
        file = BytesSource(image)
        assert not check_qcow2(file).corruptions
        bitmaps = BitmapSet(file, read_header(file))
        recorded.add(not bitmaps.in_use)
        if not bitmaps.in_use:
            _, _, bits = bits_of(image)[b"one"]
            whole = _whole(image)
            for at in range(0, SIZE, 512):
                assert whole[at : at + 512] == before[at : at + 512] or at // 512 in bits
    assert recorded == {True, False}


def _whole(image: bytes) -> bytes:
    source = open_qcow2(BytesSource(image))
    return read_bytes(source, 0, source.size)


@pytest.mark.parametrize("size", [512, 300_032, SIZE - 512])
def test_a_smaller_disk_and_its_bitmaps_are_one_change(size: int) -> None:
    start = with_bitmaps(b"one", b"two")
    before = bits_of(bytes(start.data))
    store = CrashingStore(bytes(start.data))
    shrink_qcow2(store, size)
    after = {
        name: (granularity, on, frozenset(bit for bit in bits if bit * granularity < size))
        for name, (granularity, on, bits) in before.items()
    }
    for _, image in store.crashes(random.Random(size), each=3):
        assert_clean(MemoryStore(image))
        assert bits_of(image) == (after if read_header(BytesSource(image)).size == size else before)


def test_images_that_lie_are_refused_or_changed() -> None:
    """Any byte of the tables may be wrong: an error of ours, or a change; it ends either way."""
    image = bytes(with_bitmaps(b"one", b"two", b"three", size=100_000).data)
    header = read_header(BytesSource(image))
    directory = BITMAPS.unpack(header.extensions[layout.EXTENSION_BITMAPS])["bitmap_directory_offset"]
    places = [*range(CLUSTER), *range(directory, directory + 100), *range(len(image) - 4 * CLUSTER, len(image))]
    rng = random.Random(5)
    refused = 0
    for _ in range(400):
        lying = MemoryStore(image)
        for _ in range(rng.randrange(1, 4)):
            lying.data[rng.choice(places)] = rng.choice((0, 1, 255, rng.randrange(256)))
        try:
            change_bitmaps(lying, rng.choice((_remove, _merge, _clear)))
        except DiskImageError:
            refused += 1
    assert 40 < refused < 400


def _remove(bitmaps: BitmapSet) -> None:
    bitmaps.remove(b"two")


def _merge(bitmaps: BitmapSet) -> None:
    bitmaps.merge(b"one", bitmaps.contents(b"two"))


def _clear(bitmaps: BitmapSet) -> None:
    bitmaps.contents(b"three").clear()


def test_an_extension_that_is_too_short() -> None:
    """Found by tests/fuzz: an error of struct's."""
    store = with_bitmaps(b"one")
    at = bytes(store.data).index(layout.EXTENSION_BITMAPS.to_bytes(4, "big")) + 4
    store.data[at : at + 4] = (22).to_bytes(4, "big")
    with pytest.raises(InvalidImageError, match="the header extension has 22 bytes, expected 24"):
        change_bitmaps(store, lambda bitmaps: bitmaps.add(b"two"))


def test_many_bits_take_no_memory() -> None:
    """Clusters of bits that are all set are an entry of the table, which QEMU reads, too."""
    store = MemoryStore()
    create_qcow2(store, 1 << 37)
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"one", 512))
    before = store.size
    change_bitmaps(store, lambda bitmaps: bitmaps.contents(b"one").set_range(1 << 20, 1 << 37))
    assert store.size < before + 12 * 65536
    assert_clean(store)
    bitmaps = BitmapSet(store, read_header(store))
    found = bitmaps.contents(b"one")
    assert found.read(0, 300) == bytes(256) + b"\xff" * 44
    change_bitmaps(store, lambda bitmaps: bitmaps.contents(b"one").set_range(0, 1 << 20))
    shrink_qcow2(store, (1 << 36) + 512)
    assert_clean(store)


def test_a_merge_takes_no_more_memory_than_the_bits_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    create_qcow2(store, 1 << 40, cluster_size=2 << 20)
    make(store, [lambda bitmaps: bitmaps.add(b"one", 512), lambda bitmaps: bitmaps.add(b"two", 2048)])
    change_bitmaps(store, lambda bitmaps: bitmaps.contents(b"one").set_range(1 << 20, 1 << 40))

    def merge(bitmaps: BitmapSet) -> None:
        for granularity, name in ((512, b"same"), (4096, b"coarser")):
            bitmaps.add(name, granularity)
            bitmaps.merge(name, bitmaps.contents(b"one"))

    change_bitmaps(store, merge)
    found = BitmapSet(store, read_header(store))
    assert [len([*found.contents(name).clusters]) for name in (b"same", b"coarser")] == [1, 1]
    monkeypatch.setattr(bitmap_contents, "_MOST_MERGED", 1 << 20)
    with pytest.raises(UnsupportedImageError, match="use a bitmap with a larger granularity"):
        change_bitmaps(store, lambda bitmaps: bitmaps.merge(b"two", bitmaps.contents(b"one")))


def test_a_table_that_names_a_cluster_several_times() -> None:
    file = bytes(CLUSTER) + (2 * CLUSTER).to_bytes(8, "big") * (CLUSTER // 8) + bytes(CLUSTER)
    assert read_table(BytesSource(file), CLUSTER, 3, CLUSTER)[2] == 2 * CLUSTER
    with pytest.raises(InvalidImageError, match="more clusters than the file"):
        read_table(BytesSource(file), CLUSTER, 4, CLUSTER)


def test_more_than_qemu_makes() -> None:
    store = MemoryStore()
    create_qcow2(store, 1 << 30, cluster_size=512)
    change_bitmaps(store, lambda bitmaps: bitmaps.add(b"one", 1 << 20))
    bitmaps = BitmapSet(store, read_header(store))
    bitmaps._bitmaps[0].fields["bitmap_table_size"] = (64 << 17) + 1
    with pytest.raises(UnsupportedImageError, match="more than 67108864 bytes together"):
        bitmaps.contents(b"one")
