# SPDX-License-Identifier: MIT
"""Subclusters: any valid bitmap reads as it says, and every contradiction is refused."""

from __future__ import annotations

import random
import time
import tracemalloc
from itertools import groupby
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.errors import InvalidImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.mapping import Mapping
from pydiskimg.images.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.images.qcow2.runs import DATA, HOLE, ZERO
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_images import BytesSource, Craft, assert_contract, compressed_entry, deflate

CLUSTER = 1 << 14
SUB = CLUSTER // 32
COPIED = 1 << 63
CLUSTERS = [random.Random(number).randbytes(CLUSTER) for number in range(3)]
DEFLATED = deflate(bytes(CLUSTER - 100) + bytes(range(100)))
INFLATED = bytes(CLUSTER - 100) + bytes(range(100))
BACKING = random.Random(9).randbytes(5 * CLUSTER + 1000)
EXTENDED = {"incompatible_features": 16}
ALL = 0xFFFF_FFFF


def crafted(entries: list[int], *, size: int = 8 * CLUSTER, data: bytes = b"".join(CLUSTERS)) -> bytes:
    """An image whose L2 table has these words: an entry, a bitmap, an entry, and so on."""
    return Craft(cluster_bits=14, size=size, l2=[entries], l1=[3 * CLUSTER], data=data, header=EXTENDED).build()


def opened(entries: list[int], *, backing: bytes | None = None, size: int = 8 * CLUSTER) -> Qcow2Source:
    data = b"".join(CLUSTERS) + DEFLATED
    file = BytesSource(crafted(entries, size=size, data=data))
    return open_qcow2(file, backing=None if backing is None else BytesSource(backing))


def host(number: int) -> int:
    return (4 + number) * CLUSTER


COMPRESSED = compressed_entry(14, host(3), len(DEFLATED))

bitmaps = st.one_of(
    st.sampled_from([0, ALL, ALL << 32, 1, 1 << 31, 1 << 63, 0x5555_5555_AAAA_AAAA, 0xFFFF_0000_0000_FFFF]),
    st.integers(0, (1 << 64) - 1).map(lambda n: n & ~(n >> 32) if n & 1 else n & ~((n & ALL) << 32)),
)
# number of a cluster and its bitmap; no cluster allows no allocated subclusters
Entry: TypeAlias = tuple[int | None, int] | None  # None: compressed
entry: st.SearchStrategy[Entry] = st.one_of(
    st.tuples(st.integers(0, 2), bitmaps),
    st.tuples(st.none(), bitmaps.map(lambda n: n & ALL << 32)),
    st.none(),
)


def subcluster_kinds(bitmap: int) -> list[int]:
    return [DATA if bitmap >> n & 1 else ZERO if bitmap >> 32 + n & 1 else HOLE for n in range(32)]


@settings(max_examples=100)
@given(
    table=st.lists(entry, max_size=8),
    cut=st.integers(0, CLUSTER - 1),
    has_backing=st.booleans(),
    piece=st.tuples(st.integers(0, 8 * CLUSTER), st.integers(0, 3 * CLUSTER)),
)
def test_any_table_reads_as_it_says(table: list[Entry], cut: int, has_backing: bool, piece: tuple[int, int]) -> None:
    backing = BACKING if has_backing else b""
    behind, words, whole, kinds = backing.ljust(8 * CLUSTER, b"\0"), list[int](), b"", list[int]()
    rest: list[Entry] = [(None, 0)] * (8 - len(table))
    for number, each in enumerate(table + rest):
        if each is None:
            words += [COMPRESSED, 0]
            whole += INFLATED
            kinds += [DATA] * 32
            continue
        cluster, bitmap = each
        words += [0 if cluster is None else COPIED | host(cluster), bitmap]
        for n, kind in enumerate(subcluster_kinds(bitmap)):
            at = number * CLUSTER + n * SUB
            stored = b"" if cluster is None else CLUSTERS[cluster][n * SUB : (n + 1) * SUB]
            whole += {DATA: stored, ZERO: bytes(SUB), HOLE: behind[at : at + SUB]}[kind]
            kinds.append(kind)
    size = 8 * CLUSTER - cut
    source = opened(words, backing=backing if has_backing else None, size=size)
    assert read_bytes(source, 0, size) == whole[:size]
    offset = min(piece[0], size)
    assert read_bytes(source, offset, min(piece[1], size - offset)) == whole[offset:size][: piece[1]]
    extents = assert_contract(source)
    assert extents == expected_extents(kinds, size, len(backing))


def expected_extents(kinds: list[int], size: int, backing_size: int) -> list[Extent]:
    pieces = []
    for number, kind in enumerate(kinds):
        start, end = number * SUB, min((number + 1) * SUB, size)
        middle = min(max(start, backing_size), end)
        for first, last, behind in ((start, middle, Kind.DATA), (middle, end, Kind.HOLE)):
            found = {DATA: Kind.DATA, ZERO: Kind.ZERO, HOLE: behind}[kind]
            pieces += [(first, last, found)] if first < last else []
    extents = []
    for found, group in groupby(pieces, key=lambda piece: piece[2]):
        run = list(group)
        extents.append(Extent(run[0][0], run[-1][1] - run[0][0], found))
    return extents


HOSTILE = [
    ([COPIED | 4 * CLUSTER, 1 << 32 | 1], "the bitmap 0x0000000100000001 has subclusters that are allocated and zero"),
    ([COPIED | 4 * CLUSTER, ALL << 32 | 1 << 31], "has subclusters that are allocated and zero at once"),
    ([0, 1 << 32 | 1], "has subclusters that are allocated and zero at once"),
    ([0, 1 << 7], "has allocated subclusters, and the cluster has no place in the file"),
    ([COPIED, 1 << 7], "has allocated subclusters, and the cluster has no place in the file"),
    ([1 << 62 | 4 * CLUSTER, 1], "is that of a compressed cluster, which has no subclusters"),
    ([1 << 62 | 4 * CLUSTER, 1 << 63], "is that of a compressed cluster, which has no subclusters"),
    ([1 << 62 | 400 * CLUSTER, 0], "compressed cluster offset 0x640000 lies beyond the end of the file"),
    ([COPIED | 400 * CLUSTER, 1], "cluster offset 0x640000 lies beyond the end of the file"),
    ([COPIED | 4 * CLUSTER | 1, 1], "0x8000000000010001 has reserved bits set or is not aligned"),
    ([COPIED | 4 * CLUSTER + 512, 1], "0x8000000000010200 has reserved bits set or is not aligned"),
    ([1 << 61 | 4 * CLUSTER, 0], "0x2000000000010000 has reserved bits set or is not aligned"),
]


@pytest.mark.parametrize("others", [[], [COPIED | 4 * CLUSTER, ALL], [COMPRESSED, 0]])
@pytest.mark.parametrize(("words", "sentence"), HOSTILE)
def test_contradictions(words: list[int], sentence: str, others: list[int]) -> None:
    source = opened([0, 0, *others, *words])
    number = 1 + len(others) // 2
    for use in (lambda: list(source.extents()), lambda: read_bytes(source, 0, CLUSTER)):
        with pytest.raises(InvalidImageError) as caught:
            use()
        assert str(caught.value).startswith(f"test.qcow2: L2 table 0, entry {number}: ")
        assert sentence in str(caught.value)


def test_a_place_that_is_not_read_may_be_anywhere() -> None:
    """As with the zero bit of standard entries."""
    source = opened([COPIED | 400 * CLUSTER, ALL << 32, COPIED | 400 * CLUSTER, 0])
    assert list(source.extents()) == [Extent(0, CLUSTER, Kind.ZERO), Extent(CLUSTER, 7 * CLUSTER, Kind.HOLE)]
    assert not any(read_bytes(source, 0, source.size))


def test_subclusters_of_the_last_cluster_of_a_file_that_ends_there() -> None:
    """What the file ends before is an error where it is inside the disk, and nothing otherwise."""
    content = crafted([COPIED | 4 * CLUSTER, 0b11], data=CLUSTERS[0][: 2 * SUB])
    source = open_qcow2(BytesSource(content))
    assert read_bytes(source, 0, CLUSTER) == CLUSTERS[0][: 2 * SUB].ljust(CLUSTER, b"\0")
    source = open_qcow2(BytesSource(content[:-1]))
    with pytest.raises(InvalidImageError, match="ends beyond the end of the file"):
        read_bytes(source, 0, CLUSTER)


def test_the_largest_table_is_quick_and_small() -> None:
    cluster, rng = 2 << 20, random.Random(1)
    count = cluster // 16
    words = [0] * (2 * count)
    for index in rng.sample(range(count), count // 50):
        allocated = rng.getrandbits(32)
        words[2 * index : 2 * index + 2] = COPIED | 4 * cluster, allocated | (rng.getrandbits(32) & ~allocated) << 32
    size = count * cluster
    craft = Craft(cluster_bits=21, size=size, l2=[words], l1=[3 * cluster], data=bytes(cluster), header=EXTENDED)
    file = BytesSource(craft.build())
    mapping = Mapping(file, read_header(file))
    tracemalloc.start()
    try:
        start = time.process_time()
        assert next(iter(mapping.runs(size // 2, 1))).length == 1
        assert time.process_time() - start < 1
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert sum(extent.length for extent in mapping.extents()) == size
