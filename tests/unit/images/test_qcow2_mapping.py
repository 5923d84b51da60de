# SPDX-License-Identifier: MIT
"""L1 and L2 tables: runs, extents, and entries that contradict the specification."""

from __future__ import annotations

import random
import re
import time
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.map import map_rows
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.compressed import ClusterDecoder
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.mapping import Mapping
from pydiskimg.images.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.protocols import WritableBuffer, read_bytes
from tests.fixtures.qcow2_images import BytesSource, Craft, assert_contract, compressed_entry, deflate

CLUSTER = 512
COPIED = 1 << 63
PATTERNS = [random.Random(number).randbytes(CLUSTER) for number in range(1, 20)]


def opened(craft: Craft) -> Qcow2Source:
    return open_qcow2(BytesSource(craft.build()))


def data_craft(*, l2: list[list[int]], size: int, version: int = 3) -> Craft:
    """l2 holds numbers of patterns from 1 on, 0 for a hole, -1 for a zero cluster; all in clusters of 512 bytes."""
    craft = Craft(version=version, size=size, l2=[[0] * 64] * len(l2), data=b"".join(PATTERNS))

    def entry(number: int) -> int:
        return {0: 0, -1: 1}.get(number, COPIED | craft.data_offset + (number - 1) * CLUSTER)

    craft.l2 = [[entry(number) for number in table] for table in l2]
    return craft


def expected_bytes(l2: list[list[int]], size: int) -> bytes:
    flat = [number for table in l2 for number in table + [0] * (64 - len(table))]
    return b"".join(PATTERNS[number - 1] if number > 0 else bytes(CLUSTER) for number in flat).ljust(size, b"\0")[:size]


tables = st.lists(
    st.lists(st.one_of(st.sampled_from([0, -1]), st.integers(1, 19)), max_size=64), min_size=1, max_size=3
)


@settings(max_examples=150)
@given(l2=tables, cut=st.integers(0, 64 * CLUSTER - 1), offset=st.integers(0, 1 << 20), length=st.integers(0, 1 << 20))
def test_any_table_reads_as_it_says(l2: list[list[int]], cut: int, offset: int, length: int) -> None:
    size = len(l2) * 64 * CLUSTER - cut
    source = opened(data_craft(l2=l2, size=size))
    whole = expected_bytes(l2, size)
    assert read_bytes(source, 0, size) == whole
    offset = min(offset % (size + 1), size)
    length = min(length, size - offset)
    assert read_bytes(source, offset, length) == whole[offset : offset + length]
    kinds = [Kind.DATA if n > 0 else Kind.ZERO if n else Kind.HOLE for t in l2 for n in t + [0] * (64 - len(t))]
    found = assert_contract(source)
    position, wanted = 0, []
    for kind, group in groupby(kinds):
        run = min(len(list(group)) * CLUSTER, size - position)
        if run > 0:
            wanted.append(Extent(position, run, kind))
        position += run
    assert found == wanted


@pytest.mark.parametrize("number", [0, -1, 7])
@pytest.mark.parametrize("cut", [1, 511, 512, 5000])
def test_a_full_table_ends_with_the_disk(number: int, cut: int) -> None:
    size = 64 * CLUSTER - cut
    kind = {0: Kind.HOLE, -1: Kind.ZERO, 7: Kind.DATA}[number]
    assert list(opened(data_craft(l2=[[number] * 64], size=size)).extents()) == [Extent(0, size, kind)]


class CountingSource(BytesSource):
    """Counts the reads, and keeps the length of the longest."""

    reads = longest = 0

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self.reads += 1
        self.longest = max(self.longest, len(buffer))
        super().read_into(offset, buffer)


def test_neighbours_in_the_file_are_one_read() -> None:
    file = CountingSource(data_craft(l2=[list(range(1, 20)), []], size=2 * 64 * CLUSTER).build())
    source = open_qcow2(file)
    read_bytes(source, 0, 19 * CLUSTER)
    before = file.reads
    read_bytes(source, 100, 18 * CLUSTER)
    assert file.reads == before + 1


def test_neighbouring_compressed_clusters_are_one_read_and_cached() -> None:
    random_data = random.Random(1).randbytes(CLUSTER // 4)
    clusters = [bytes([number]) * (CLUSTER - len(random_data)) + random_data for number in range(64)]
    parts = [deflate(cluster) for cluster in clusters]
    craft = Craft(l2=[[0]], data=b"".join(parts))
    at, entries = craft.data_offset, []
    for part in parts:
        entries.append(compressed_entry(9, at, len(part)))
        at += len(part)
    craft.l2 = [entries]
    file = CountingSource(craft.build())
    source = open_qcow2(file)
    assert read_bytes(source, 0, source.size) == b"".join(clusters)
    assert assert_contract(source) == [Extent(0, source.size, Kind.DATA)]
    before = file.reads
    assert read_bytes(source, 0, source.size) == b"".join(clusters)
    assert file.reads == before + 1
    for offset in range(0, CLUSTER, 16):
        assert read_bytes(source, offset, 16) == clusters[0][offset : offset + 16]
    assert file.reads == before + 2


@pytest.mark.parametrize("step", [1, -1, 5])
def test_compressed_clusters_in_any_order_of_the_file(step: int) -> None:
    """23 clusters of 64 KiB that hardly compress: more than one read, none of them long."""
    clusters = [random.Random(number).randbytes(60000) + bytes(5536) for number in range(23)]
    parts = [deflate(cluster) for cluster in clusters]
    craft = Craft(cluster_bits=16, size=23 << 16, l2=[[0]])
    entries, at = [0] * 23, craft.data_offset
    order = [number * step % 23 for number in range(23)]
    for number in order:
        entries[number] = compressed_entry(16, at, len(parts[number]))
        at += len(parts[number])
    craft.data = b"".join(parts[number] for number in order)
    craft.l2 = [entries]
    file = CountingSource(craft.build())
    source = open_qcow2(file)
    file.longest = 0
    assert read_bytes(source, 0, source.size) == b"".join(clusters)
    assert file.longest <= 1 << 20


@pytest.mark.parametrize("cluster_bits", [9, 12, 16, 21])
def test_where_the_data_of_a_compressed_cluster_ends(cluster_bits: int) -> None:
    mapping = Mapping(BytesSource(b""), read_header(BytesSource(Craft(cluster_bits=cluster_bits).build())))
    for offset, length in ((1024, 1), (1024, 512), (1535, 1), (1535, 2), (1100, 5)):
        found = mapping.header.compressed_at(compressed_entry(cluster_bits, offset, length))
        assert found == (offset, -(-(offset + length) // 512) * 512 - offset)


def test_threads_that_want_parts_of_a_cluster_share_the_work() -> None:
    cluster = random.Random(2).randbytes(128) * 32
    stored = deflate(cluster)
    craft = Craft(cluster_bits=12, size=1 << 20, l2=[[0]], data=stored)
    craft.l2 = [[compressed_entry(12, craft.data_offset, len(stored))]]
    file = BytesSource(craft.build())
    calls = []

    class Slow(ClusterDecoder):
        def decode(self, data: memoryview, cluster: memoryview) -> None:
            calls.append(len(cluster))
            time.sleep(0.05)
            super().decode(data, cluster)

    source = Qcow2Source(file, Mapping(file, read_header(file)), Slow("zlib", name=""))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda part: read_bytes(source, part * 512, 512), range(8)))
    assert b"".join(parts) == cluster
    assert calls == [4096]


BAD_ENTRIES = [
    (
        3,
        COPIED | 0x4000_0000_0000 & ~511,
        "L2 table 0, entry 1: cluster offset 0x400000000000 lies beyond the end of the file (0xa00)",
    ),
    (3, 1 << 56 | 2048, "L2 table 0, entry 1: 0x0100000000000800 has reserved bits set or is not aligned"),
    (3, 2048 | 2, "L2 table 0, entry 1: 0x0000000000000802 has reserved bits set or is not aligned"),
    (2, 2048 | 1, "L2 table 0, entry 1: 0x0000000000000801 has reserved bits set or is not aligned"),
    (2, 1, "L2 table 0, entry 1: 0x0000000000000001 has reserved bits set or is not aligned"),
    (
        3,
        1 << 62 | 0xA00,
        "L2 table 0, entry 1: compressed cluster offset 0xa00 lies beyond the end of the file (0xa00)",
    ),
    (
        3,
        1 << 62 | 1 << 60,
        "L2 table 0, entry 1: compressed cluster offset 0x1000000000000000 lies beyond the end of the file",
    ),
]


@pytest.mark.parametrize(("version", "entry", "sentence"), BAD_ENTRIES)
@pytest.mark.parametrize("beside", [0, 2048, 1 << 62 | 2048])
def test_bad_l2_entry(version: int, entry: int, sentence: str, beside: int) -> None:
    source = opened(Craft(version=version, l2=[[beside, entry]], data=bytes(512)))
    for action in (lambda: list(source.extents()), lambda: read_bytes(source, 5, 5)):
        with pytest.raises(InvalidImageError) as caught:
            action()
        assert str(caught.value).startswith(f"test.qcow2: {sentence}")
        assert str(caught.value).endswith("; the image is truncated or corrupt")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (1 << 40, "L1 entry 0: L2 table offset 0x10000000000 lies beyond the end of the file (0x600)"),
        (0x600, "L1 entry 0: L2 table offset 0x600 lies beyond the end of the file (0x600)"),
        (0x400 | 1, "L1 entry 0: 0x0000000000000401 has reserved bits set or is not aligned"),
        (0x400 | 1 << 56, "L1 entry 0: 0x0100000000000400 has reserved bits set or is not aligned"),
    ],
)
def test_bad_l1_entry(entry: int, sentence: str) -> None:
    source = opened(Craft(l1=[entry]))
    for action in (lambda: list(source.extents()), lambda: read_bytes(source, 0, 1)):
        with pytest.raises(InvalidImageError) as caught:
            action()
        assert str(caught.value) == f"test.qcow2: {sentence}; the image is truncated or corrupt"


def test_unaligned_entries_of_larger_clusters() -> None:
    source = opened(
        Craft(cluster_bits=12, size=1 << 20, l2=[[COPIED | 4 << 12, COPIED | 4 << 12 | 512]], data=bytes(8192))
    )
    with pytest.raises(
        InvalidImageError, match="L2 table 0, entry 1: 0x8000000000004200 has reserved bits set or is not"
    ):
        list(source.extents())


def test_unaligned_l2_table_of_larger_clusters() -> None:
    source = opened(Craft(cluster_bits=12, size=1 << 20, l1=[3 << 12 | 512], data=bytes(1 << 16)))
    with pytest.raises(
        InvalidImageError, match="L1 entry 0: 0x0000000000003200 has reserved bits set or is not aligned"
    ):
        list(source.extents())


def test_zero_cluster_may_name_any_host_cluster() -> None:
    source = opened(Craft(l2=[[1 | 1 << 50, 0]]))
    assert list(source.extents()) == [Extent(0, 512, Kind.ZERO), Extent(512, 63 * 512, Kind.HOLE)]
    assert read_bytes(source, 0, 1024) == bytes(1024)


def test_empty_l1_entry_with_the_copied_bit_is_a_hole() -> None:
    source = opened(Craft(l1=[COPIED]))
    assert list(source.extents()) == [Extent(0, 64 * 512, Kind.HOLE)]


@pytest.mark.parametrize("missing", [1, 511])
def test_last_cluster_may_end_with_the_virtual_disk(missing: int) -> None:
    """Bytes after the virtual size need not be in the file; those before it must."""
    craft = data_craft(l2=[[19]], size=512 - missing)
    image = craft.build()[:-missing]
    assert read_bytes(open_qcow2(BytesSource(image)), 0, 512 - missing) == PATTERNS[18][:-missing]
    source = open_qcow2(BytesSource(image[:-1]))
    sentence = {
        1: "the data of guest bytes 0 to 511 is at 0x2c00 and ends beyond the end of the file (0x2dfe)",
        511: "L2 table 0, entry 0: cluster offset 0x2c00 lies beyond the end of the file (0x2c00)",
    }[missing]
    with pytest.raises(InvalidImageError, match=re.escape(f"test.qcow2: {sentence}; the image is truncated")):
        read_bytes(source, 0, source.size)


def test_tables_of_a_huge_disk_cost_nothing() -> None:
    l1 = [0] * 512
    craft = Craft(cluster_bits=21, size=512 * (1 << 39), l1=l1)
    tracemalloc.start()
    try:
        source = open_qcow2(BytesSource(craft.build()))
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        assert list(source.extents()) == [Extent(0, 512 << 39, Kind.HOLE)]
        assert tracemalloc.get_traced_memory()[1] - start < 1 << 20
    finally:
        tracemalloc.stop()
    buffer = bytearray(b"\xff") * 100
    source.read_into((512 << 39) - 100, buffer)
    assert buffer == bytes(100)


class EndlessSource(BytesSource):
    """A file whose last cluster is used again and again."""

    def __init__(self, data: bytes, cluster_size: int, clusters: int) -> None:
        super().__init__(data)
        self.cluster_size = cluster_size
        self.size = clusters * cluster_size

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        if offset >= len(self.data):
            offset = len(self.data) - self.cluster_size + offset % self.cluster_size
        buffer[:] = self.data[offset : offset + len(buffer)]


def test_l2_tables_are_forgotten() -> None:
    """Many full tables of 2 MiB are mapped in the memory of a few."""
    table = [COPIED | 2 << 21] * (1 << 18)
    craft = Craft(cluster_bits=21, size=40 << 39, l2=[table], l1=[index + 3 << 21 for index in range(40)])
    source = open_qcow2(EndlessSource(craft.build(), 1 << 21, 50))
    tracemalloc.start()
    try:
        assert list(source.extents()) == [Extent(0, 40 << 39, Kind.DATA)]
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 64 * 512 + 1), (64 * 512, 1)])
def test_outside_of_the_disk(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="are outside of 0 to 32768"):
        opened(Craft()).read_into(offset, bytearray(length))


def test_l1_entries_that_share_a_table() -> None:
    """A small file that claims petabytes through one L2 table must not keep a reader busy for them."""
    craft = Craft(cluster_bits=16, l2=[[0] * 8192])
    craft.l1 = [craft.l2_offset | 1 << 63] * 8192
    craft.size = 8192 * 8192 * 65536
    source = open_qcow2(BytesSource(craft.build()))
    start = time.process_time()
    with pytest.raises(InvalidImageError, match=r"^test.qcow2: L1 table: it has more L2 tables than the file"):
        list(source.extents())
    assert time.process_time() - start < 1


def test_a_map_asks_the_layer_below_for_each_hole() -> None:
    """That one must not look at all of its L1 table each time."""
    rows = 1900
    holes_and_zeros = [[1, 0] * 32] * rows
    top = many_tables(holes_and_zeros, b"below")
    below = many_tables([*[None] * 8191, [1] * 64])
    source = open_qcow2(BytesSource(top), backing=open_qcow2(BytesSource(below)))
    start = time.process_time()
    assert sum(1 for _ in map_rows(source, 0, source.size)[1]) == rows * 64
    assert time.process_time() - start < 8  # 0.3 on a quiet machine


def many_tables(l2: Sequence[Sequence[int] | None], backing: bytes = b"") -> bytes:
    """An image of 512-byte clusters with these L2 tables; None has no table."""
    at = 3 * 512
    first = at + -(-len(l2) * 8 // 512) * 512
    tables = [b"".join(entry.to_bytes(8, "big") for entry in table) for table in l2 if table is not None]
    places = iter(range(first, first + 512 * len(tables), 512))
    l1 = b"".join((0 if table is None else next(places)).to_bytes(8, "big") for table in l2)
    backing_at = 200 if backing else 0
    head = layout.HEADER.pack(
        magic=layout.MAGIC,
        version=3,
        backing_file_offset=backing_at,
        backing_file_size=len(backing),
        cluster_bits=9,
        size=len(l2) << 15,
        l1_size=len(l2),
        l1_table_offset=at,
        refcount_table_offset=512,
        refcount_table_clusters=1,
        refcount_order=4,
        header_length=104,
    )
    head = head.ljust(200, b"\0") + backing
    return head.ljust(at, b"\0") + l1.ljust(first - at, b"\0") + b"".join(table.ljust(512, b"\0") for table in tables)


def test_what_was_read_before_does_not_matter() -> None:
    """Two entries name one compressed cluster, and the second tells fewer sectors than it has."""
    data = deflate(random.Random(1).randbytes(16384))
    craft = Craft(cluster_bits=14, size=1 << 20, l2=[[]], data=data)
    at = craft.data_offset
    craft.l2 = [[compressed_entry(14, at, len(data)), compressed_entry(14, at, 600)]]
    source = open_qcow2(BytesSource(craft.build()))
    source.read_into(0, bytearray(512))
    with pytest.raises(InvalidImageError, match="compressed cluster"):
        source.read_into(16384, bytearray(512))
