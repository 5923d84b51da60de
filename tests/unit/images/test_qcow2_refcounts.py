# SPDX-License-Identifier: MIT
"""Refcount blocks of every width against lists of numbers; the allocator where tables must grow; metadata clusters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.errors import InvalidImageError, StorageError
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.sizes import refcount_clusters
from pydiskimg.images.qcow2.write.create import create_qcow2
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.images.qcow2.write.packing import Packing, joined
from pydiskimg.images.qcow2.write.refcount_entries import RefcountEntries
from pydiskimg.images.qcow2.write.refcounts import MetadataClusters, Refcounts
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import MemoryStore


def counts_of(store: MemoryStore) -> Refcounts:
    return Refcounts(store, read_header(BytesSource(bytes(store.data))))


def empty(size: int = 1 << 20, cluster_size: int = 512) -> MemoryStore:
    store = MemoryStore()
    create_qcow2(store, size, cluster_size=cluster_size)
    return store


@pytest.mark.parametrize("order", range(7))
@given(data=st.data())
def test_entries(order: int, data: st.DataObject) -> None:
    entries = RefcountEntries(order)
    count = entries.per_block(512)
    assert count == 512 * 8 >> order
    assert entries.largest == 2 ** (2**order) - 1
    raw, expected = bytearray(512), [0] * count
    values = st.one_of(st.just(entries.largest), st.integers(0, min(entries.largest, 300)))
    for _ in range(data.draw(st.integers(1, 8))):
        index = data.draw(st.integers(0, count - 1))
        number = data.draw(st.integers(1, count - index))
        value = data.draw(values)
        if data.draw(st.booleans()):
            entries.put(raw, index, value)
            expected[index] = value
        else:
            entries.fill(raw, index, number, value)
            expected[index : index + number] = [value] * number
        assert entries.are(raw, index, number, value) == (expected[index : index + number] == [value] * number)
    assert [entries.get(raw, index) for index in range(count)] == expected
    index = data.draw(st.integers(0, count - 1))
    zero = next((at for at in range(index, count) if not expected[at]), count)
    assert entries.first_zero(raw, index) == zero
    if zero < count:
        after = next((at for at in range(zero, count) if expected[at]), count)
        for most in (1, 5, count):
            assert entries.zeros_from(raw, zero, most) == min(after - zero, most)
    assert entries.last_used(raw) == max((at for at in range(count) if expected[at]), default=-1)


def test_a_span_is_the_bytes_that_change() -> None:
    assert RefcountEntries(0).span(9, 1) == (1, 2)
    assert RefcountEntries(0).span(7, 2) == (0, 2)
    assert RefcountEntries(4).span(3, 2) == (6, 10)


def test_allocating_is_a_bijection() -> None:
    """Clusters in use are never given out; what was released is, after apply_releases() and not before."""
    store = empty()
    refcounts, rng = counts_of(store), random.Random(1)
    used: set[int] = set(range(refcounts.end))
    own: list[int] = []
    waiting: set[int] = set()
    for _ in range(3000):
        if rng.random() < 0.55 or not own:
            first, count = refcounts.allocate(rng.randrange(1, 20))
            taken = set(range(first, first + count))
            assert not taken & (used | waiting)
            used |= taken
            own += taken
        else:
            cluster = own.pop(rng.randrange(len(own)))
            refcounts.release(cluster)
            waiting.add(cluster)
        if rng.random() < 0.1:
            refcounts.apply_releases()
            used -= waiting
            waiting.clear()
        if rng.random() < 0.05:
            refcounts.write()
    refcounts.apply_releases()
    refcounts.write()
    again = counts_of(store)
    assert all(again.get(cluster) == 1 for cluster in own)


def test_the_table_moves() -> None:
    store = empty()
    refcounts = counts_of(store)
    before = store.data[48:60]
    for _ in range(4):
        assert refcounts.allocate_together(9000) > 0
    refcounts.write()
    refcounts.apply_releases()
    refcounts.write()
    assert store.data[48:60] != before
    store.write(refcounts.end * 512 - 1, b"\0")
    again = counts_of(store)
    assert again.get(1) == 0  # where the table was
    assert again.allocate_together(1) == refcounts.end
    found = check_qcow2(BytesSource(bytes(store.data)))
    assert (found.corruptions, found.leaks) == (0, 4 * 9000)


def test_the_table_has_a_limit() -> None:
    refcounts = counts_of(empty())
    with pytest.raises(StorageError, match=r"larger than 137438953472 bytes \(128 GiB\).*use a larger cluster size"):
        refcounts.allocate_together(1 << 29)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (0x1234, r"refcount table entry 0: 0x0000000000001234 is not the offset of a cluster"),
        (1 << 40, r"refcount block offset 0x10000000000 lies beyond the end of the file"),
    ],
)
def test_a_table_that_lies(entry: int, words: str) -> None:
    store = empty()
    store.data[512:520] = entry.to_bytes(8, "big")
    with pytest.raises(InvalidImageError, match=words):
        open_qcow2_disk(store).write(0, b"x")


def test_packing_never_counts_too_often() -> None:
    class Narrow(Refcounts):
        largest = 3

    store = empty(cluster_size=4096)
    refcounts = Narrow(store, read_header(BytesSource(bytes(store.data))))
    packing, rng = Packing(refcounts, 4096), random.Random(2)
    touched: dict[int, int] = {}
    end = 0
    for _ in range(200):
        lengths = [rng.randrange(1, 4096) for _ in range(rng.randrange(1, 20))]
        for offset, length in zip(packing.offsets_for(lengths), lengths, strict=True):
            assert offset >= end
            end = offset + length
            for cluster in range(offset // 4096, (end - 1) // 4096 + 1):
                touched[cluster] = touched.get(cluster, 0) + 1
    refcounts.apply_releases()
    assert max(touched.values()) == 3
    assert all(refcounts.get(cluster) == count for cluster, count in touched.items())


def test_packing_leaves_a_cluster_that_became_free() -> None:
    refcounts = counts_of(empty(cluster_size=4096))
    packing = Packing(refcounts, 4096)
    (offset,) = packing.offsets_for([100])
    packing.take_back(offset, 100)
    refcounts.apply_releases()
    packing.after_releases()
    first, _ = refcounts.allocate(1)
    assert first == offset // 4096
    assert packing.offsets_for([100])[0] // 4096 != first


def test_joined() -> None:
    assert list(joined([10, 13, 20, 21], [b"abc", b"de", b"f", b"g"])) == [(10, b"abcde"), (20, b"fg")]
    assert list(joined([], [])) == []


@pytest.mark.parametrize("cluster_size", [512, 4096, 65536])
@pytest.mark.parametrize("others", [1, 200, 256, 65536, 1000000])
def test_enough_blocks(cluster_size: int, others: int) -> None:
    table, blocks = refcount_clusters(others, cluster_size)
    assert blocks * cluster_size // 2 >= others + table + blocks
    assert table * cluster_size // 8 >= blocks


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.integers(0, 40))), st.integers(0, 300), st.integers(0, 50)
)
def test_metadata_clusters(changes: list[tuple[bool, int, int]], cluster: int, count: int) -> None:
    found = MetadataClusters()
    expected: set[int] = set()
    for adds, first, number in changes:
        (found.add if adds else found.discard)(first, number)
        (expected.update if adds else expected.difference_update)(range(first, first + number))
    assert found.first_of(cluster, count) == min(expected & set(range(cluster, cluster + count)), default=None)
