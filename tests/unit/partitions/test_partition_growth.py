# SPDX-License-Identifier: MIT
"""Only the last partition grows, only in the table, and the table is always valid; invalid tables are refused."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import PartitionError
from pydiskimg.partitions.grow import grow_last_partition, plan_partition_growth
from pydiskimg.partitions.growth_plan import NothingToGrowError, PartitionGrowth
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.units import MIB, TIB
from tests.fixtures.partition_tables import LINUX, entry, gpt, record, with_logical

SIZE = 4 * MIB
SECTORS = SIZE // 512
TYPES = (LINUX, 0x82, 0x07, 0xFD)


def partitions_of(disk: MemoryDisk) -> list[Partition]:
    return read_partition_table(disk, sector_size=disk.sector_size)


def instants(disk: MemoryDisk, growth: PartitionGrowth) -> Iterator[MemoryDisk]:
    """The disk after each write, and with every write of several sectors torn in the middle or turned around."""
    after = MemoryDisk(0, sector_size=disk.sector_size)
    after.data = bytearray(disk.data)
    for offset, contents in growth.writes:
        half = len(contents) // disk.sector_size // 2 * disk.sector_size
        for torn in (slice(0, half), slice(half, None)):
            before = bytes(after.data[offset : offset + len(contents)])
            after.write(offset + (torn.start or 0), contents[torn])
            yield after
            after.write(offset, before)
        after.write(offset, contents)
        yield after


def check_growth(disk: MemoryDisk) -> PartitionGrowth | None:
    """Grow, and check everything that must hold of any disk."""
    old_bytes, old = bytes(disk.data), partitions_of(disk)
    growth = plan_partition_growth(disk, disk.sector_size)
    assert bytes(disk.data) == old_bytes, "planning has written"
    if growth is None or not growth.writes:
        assert grow_last_partition(disk) is None
        assert bytes(disk.data) == old_bytes
        return None
    new = [Partition(p.number, p.start, growth.length if p == growth.partition else p.length, p.type) for p in old]
    for instant in instants(disk, growth):
        assert partitions_of(instant) in (old, new)
    assert grow_last_partition(disk) == growth
    assert partitions_of(disk) == new
    assert max(p.start + p.length for p in old) == growth.partition.start + growth.partition.length
    end = growth.partition.start + growth.length
    assert end % MIB == 0
    assert disk.size - end < MIB + 40 * disk.sector_size
    for p in old:
        assert disk.data[p.start : p.start + p.length] == old_bytes[p.start : p.start + p.length]
    assert disk.data[:440] == old_bytes[:440]
    assert grow_last_partition(disk) is None
    return growth


def mbr_disk(*entries: bytes, size: int = SIZE, sector_size: int = 512) -> MemoryDisk:
    disk = MemoryDisk(size, fill=0xAA, sector_size=sector_size)
    disk.write(0, record(*entries, code=b"code"))
    return disk


@st.composite
def ranges(draw: st.DrawFn, first: int, last: int, most: int) -> list[tuple[int, int]]:
    """Disjoint (start, end) in any order."""
    count = draw(st.integers(1, most))
    cuts = sorted(draw(st.sets(st.integers(first, last), min_size=2 * count, max_size=2 * count)))
    found = list(zip(cuts[::2], cuts[1::2], strict=True))
    return draw(st.permutations(found))


@settings(max_examples=60)
@given(ranges(1, SECTORS, 4), st.sampled_from([512, 4096]))
def test_primary_partitions(places: list[tuple[int, int]], sector_size: int) -> None:
    disk = mbr_disk(
        *(
            entry((LINUX, 0x82, 0x07, 0xFD)[n], start, end - start, boot=0x80 * (n == 1))
            for n, (start, end) in enumerate(places)
        ),
        size=SECTORS * sector_size + 17,
        sector_size=sector_size,
    )
    before = bytes(disk.data[:512])
    growth = check_growth(disk)
    if growth:
        place = 446 + 16 * (growth.partition.number - 1)
        changed = [at for at in range(512) if disk.data[at] != before[at]]
        assert {at - place for at in changed} <= {*range(5, 8), *range(12, 16)}
        assert bytes(disk.data[512:]) == b"\xaa" * (disk.size - 512)


@settings(max_examples=60)
@given(st.data())
def test_logical_partitions(data: st.DataObject) -> None:
    start = data.draw(st.integers(2, 100))
    end = data.draw(st.integers(2000, SECTORS))
    logical = [(first + 1, last - first) for first, last in data.draw(ranges(start + 1, end - 1, 6))]
    with_primary = data.draw(st.booleans()) and end < SECTORS - 10
    disk = MemoryDisk(SIZE, fill=0xAA)
    primary = [entry(LINUX, end + 1, 5)] if with_primary else []
    with_logical(disk, (start, end - start), logical, *primary)
    growth = check_growth(disk)
    if growth:
        assert growth.partition.number == (1 if with_primary else 5 + logical.index(max(logical)))
        if not with_primary:
            assert_nested(disk, start, logical, growth)


def assert_nested(disk: MemoryDisk, start: int, logical: list[tuple[int, int]], growth: PartitionGrowth) -> None:
    """The extended partition, and the link to its record, reach as far as the partition that has grown."""
    end = (growth.partition.start + growth.length) // 512
    assert entry_at(disk, 0, 0) == (start, end - start)
    index = growth.partition.number - 5
    if index:
        before = start if index == 1 else logical[index - 1][0] - 1
        record = logical[index][0] - 1
        assert entry_at(disk, before, 1) == (record - start, end - record)


def entry_at(disk: MemoryDisk, sector: int, slot: int) -> tuple[int, int]:
    start, length = struct.unpack_from("<II", disk.data, sector * 512 + 446 + 16 * slot + 8)
    return start, length


@settings(max_examples=60)
@given(ranges(34, MIB // 512, 5), st.integers(MIB // 512 + 40, SECTORS), st.sampled_from([512, 4096]))
def test_gpt(places: list[tuple[int, int]], sectors: int, sector_size: int) -> None:
    disk = MemoryDisk(SECTORS * sector_size, fill=0xAA, sector_size=sector_size)
    gpt(disk, [(0, 0), *((start, end - 1) for start, end in places)], sectors=sectors)
    before = bytes(disk.data)
    growth = check_growth(disk)
    assert growth
    # In the entry nothing but the end changes; the rest of the array and of the header are as they were.
    place = 2 * sector_size + 128 * (growth.partition.number - 1)
    array = slice(2 * sector_size, 2 * sector_size + 128 * 128)
    assert disk.data[array.start : place + 40] == before[array.start : place + 40]
    assert disk.data[place + 48 : array.stop] == before[place + 48 : array.stop]
    assert disk.data[sector_size + 56 : sector_size + 88] == before[sector_size + 56 : sector_size + 88]
    # The backup is found where the disk ends, and is good by itself.
    disk.data[sector_size : sector_size + 512] = bytes(512)
    assert max(p.start + p.length for p in partitions_of(disk)) == growth.partition.start + growth.length


def test_a_gpt_that_was_left_half_way_is_finished() -> None:
    disk = MemoryDisk(SIZE)
    gpt(disk, [(40, 2000)], sectors=SECTORS - 4000)
    growth = plan_partition_growth(disk, 512)
    assert growth
    finished = []
    for count in range(len(growth.writes) + 1):
        interrupted = MemoryDisk(0)
        interrupted.data = bytearray(disk.data)
        for offset, contents in growth.writes[:count]:
            interrupted.write(offset, contents)
        grow_last_partition(interrupted)
        finished.append(bytes(interrupted.data))
    assert set(finished) == {finished[-1]}


def test_the_flush_comes_between_the_writes() -> None:
    class Recording(MemoryDisk):
        steps = ""

        def write(self, offset: int, data: Any) -> None:
            self.steps += "w"
            super().write(offset, data)

        def flush(self) -> None:
            self.steps += "f"

    disk = Recording(SIZE)
    gpt(disk, [(40, 2000)], sectors=SECTORS - 4000)
    disk.steps = ""
    grow_last_partition(disk)
    assert disk.steps == "wf" * 6


class HugeDisk(MemoryDisk):
    """That many bytes; only the first MiB can be read."""

    def __init__(self, size: int) -> None:
        super().__init__(MIB)
        self._size = size

    @property
    def size(self) -> int:
        return self._size


@pytest.mark.parametrize(("size", "end"), [(2 * TIB - 512, 2 * TIB - MIB), (9 * TIB, 2 * TIB - MIB), (TIB, TIB)])
def test_an_mbr_counts_up_to_2_tib(size: int, end: int) -> None:
    disk = HugeDisk(size)
    disk.write(0, record(entry(LINUX, 2048, 100)))
    growth = grow_last_partition(disk)
    assert growth
    assert growth.partition.start + growth.length == end
    assert growth.limited_by == ("an MBR counts no further" if size > 2 * TIB else "")
    assert bytes(disk.data[446 + 5 : 446 + 8]) == b"\xfe\xff\xff"


def test_the_chs_address_of_a_small_disk() -> None:
    disk = mbr_disk(entry(LINUX, 63, 100), size=16 * MIB)
    grow_last_partition(disk)
    # With 255 heads and 63 sectors, 32767 is 2 * 255 * 63 + 10 * 63 + 7, and sectors count from 1.
    assert tuple(disk.data[446 + 5 : 446 + 8]) == (10, 8, 2)


@pytest.mark.parametrize(
    "disk",
    [
        MemoryDisk(0),
        MemoryDisk(512),
        MemoryDisk(1024),
        MemoryDisk(SIZE),
        MemoryDisk(SIZE, fill=0xFF),
        mbr_disk(),
        mbr_disk(entry(LINUX, 63, 100, boot=0x41)),  # text of a boot sector
        mbr_disk(entry(LINUX, 63, SECTORS - 63)),
    ],
    ids=["empty", "sector", "two", "zeros", "ones", "no-partition", "no-table", "full"],
)
def test_nothing_to_do(disk: MemoryDisk) -> None:
    assert check_growth_or_none(disk) is None


def check_growth_or_none(disk: MemoryDisk) -> PartitionGrowth | None:
    before = bytes(disk.data)
    growth = grow_last_partition(disk)
    assert growth is not None or bytes(disk.data) == before
    return growth


def chain(*records: tuple[int, bytes], extended: tuple[int, int] = (10, 3000)) -> MemoryDisk:
    disk = mbr_disk(entry(5, *extended))
    for sector, contents in records:
        disk.write(sector * 512, contents)
    return disk


def gpt_disk(*partitions: tuple[int, int], sectors: int = SECTORS - 4000, **lies: int) -> MemoryDisk:
    disk = MemoryDisk(SIZE)
    gpt(disk, partitions or [(400, 2000)], sectors=sectors, **lies)
    return disk


def with_first() -> MemoryDisk:
    disk = mbr_disk(entry(LINUX, 1, 5), entry(5, 10, 3000))
    disk.write(5120, record())
    return disk


def hybrid() -> MemoryDisk:
    disk = gpt_disk()
    disk.write(0, record(entry(0xEE, 1, 39), entry(LINUX, 40, 4961)))
    return disk


def without_header() -> MemoryDisk:
    disk = gpt_disk()
    disk.zero(512, 512)
    return disk


LINK = entry(5, 20, 5)
LIES: dict[str, tuple[Callable[[], MemoryDisk], str]] = {
    "beyond": (lambda: mbr_disk(entry(LINUX, 100, SECTORS)), r"lies beyond the end of the disk"),
    "overlap": (
        lambda: mbr_disk(entry(LINUX, 100, 100), entry(LINUX, 150, 100)),
        r"type 0x83 at sector 150 \(sectors 150 to 250\) overlaps the partition of type 0x83 at sector 100 \(to 200\)",
    ),
    "same": (lambda: mbr_disk(entry(LINUX, 100, 100), entry(LINUX, 100, 100)), "overlaps"),
    "table": (lambda: mbr_disk(entry(LINUX, 0, 100)), "overlaps the partition table"),
    "two-extended": (lambda: mbr_disk(entry(5, 10, 10), entry(0xF, 30, 10)), "(has 2 extended|has no signature)"),
    "circle": (
        lambda: chain((10, record(entry(LINUX, 1, 1), LINK)), (30, record(entry(LINUX, 1, 1), LINK))),
        "circular",
    ),
    "back-to-the-first": (lambda: chain((10, record(entry(LINUX, 1, 1), entry(5, 0, 5)))), "(overlaps|circular)"),
    "no-record": (chain, "extended boot record at byte 5120 has no signature"),
    "extended-beyond": (
        lambda: chain((10, record(entry(LINUX, 1, 1))), extended=(10, SECTORS)),
        r"the extended partition \(to sector 8202\) reaches beyond the end of the disk",
    ),
    "logical-outside": (
        lambda: chain((10, record(entry(LINUX, 1, 5000)))),
        r"lies outside of its extended partition \(sectors 10 to 3010\)",
    ),
    "record-in-partition": (
        lambda: chain((10, record(entry(LINUX, 1, 100), LINK)), (30, record(entry(LINUX, 100, 5)))),
        "overlaps",
    ),
    "odd-slots": (lambda: chain((10, record(entry(LINUX, 1, 1), entry(LINUX, 5, 5)))), "not one that partitioners"),
    "three-entries": (
        lambda: chain((10, record(entry(LINUX, 1, 1), LINK, entry(LINUX, 3, 2))), (30, record(entry(LINUX, 1, 1)))),
        "not one that partitioners",
    ),
    "link-without-length": (
        lambda: chain((10, record(entry(LINUX, 1, 1), entry(5, 20, 0))), (30, record(entry(LINUX, 1, 1)))),
        "extended boot record that some systems do not find",
    ),
    "gpt-crc": (lambda: gpt_disk(crc=1), "header at byte 512: CRC"),
    "gpt-array-crc": (lambda: gpt_disk(array_crc=1), "the CRC of its entries at sector 2 is wrong"),
    "gpt-header-size": (lambda: gpt_disk(header_size=4096), "header size 4096 at byte 512"),
    "gpt-header-small": (lambda: gpt_disk(header_size=91), "header size 91 at byte 512"),
    "gpt-array-beyond": (lambda: gpt_disk(array=1 << 60), "entries at sector 1152921504606846976"),
    "gpt-array-in-header": (lambda: gpt_disk(array=1), "entries at sector 1"),
    "gpt-array-in-partition": (lambda: gpt_disk(array=50), "entries at sector 50"),
    "gpt-usable": (lambda: gpt_disk(last_usable=SECTORS), f"usable sectors 34 to {SECTORS}, stated at byte 512"),
    "gpt-usable-turned": (lambda: gpt_disk(first_usable=9000, last_usable=8000), "usable sectors 9000 to 8000"),
    "gpt-not-first": (lambda: gpt_disk(my=2), "header of sector 2, found in sector 1"),
    "gpt-turned": (lambda: gpt_disk((5000, 40)), r"partition 1 \(sectors 5000 to 40\) lies outside"),
    "gpt-outside": (lambda: gpt_disk((20, 400)), r"partition 1 \(sectors 20 to 400\) lies outside"),
    "gpt-overlap": (
        lambda: gpt_disk((40, 400), (400, 500)),
        r"partition 2 \(sectors 400 to 501\) overlaps partition 1",
    ),
    "gpt-gone": (without_header, "no header at byte 512"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused_and_nothing_is_written(name: str) -> None:
    make, message = LIES[name]
    disk = make()
    before = bytes(disk.data)
    with pytest.raises(PartitionError, match=message):
        grow_last_partition(disk)
    assert bytes(disk.data) == before


@pytest.mark.parametrize("size", [0, 1, 64, 127, 129, 192, 1 << 31 | 128])
def test_sizes_of_entries(size: int) -> None:
    with pytest.raises(PartitionError, match=f"128 entries of {size} bytes"):
        grow_last_partition(gpt_disk(stated_size=size))


@pytest.mark.parametrize("count", [0, 1025, 1 << 31, 0xFFFFFFFF])
def test_numbers_of_entries(count: int) -> None:
    with pytest.raises(PartitionError, match=f"{count} entries of 128 bytes"):
        grow_last_partition(gpt_disk(stated_count=count))


@pytest.mark.parametrize(("count", "size"), [(4, 128), (5, 128), (1024, 128)])
def test_arrays_of_other_sizes(count: int, size: int) -> None:
    disk = MemoryDisk(SIZE, fill=0xAA)
    gpt(disk, [(0, 0), (600, 900), (1000, 1500)], sectors=SECTORS - 4000, count=count, size=size)
    growth = check_growth(disk)
    assert growth
    assert growth.partition.number == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gpt_disk((0, 0)), "the GPT has no partition"),
        (lambda: chain((10, record())), "is an empty extended one"),
        (hybrid, "the MBR has partitions besides those of the GPT"),
        (
            lambda: gpt_disk(protective=63),
            "its protective MBR entry starts at sector 63, expected 1",
        ),
        (
            lambda: gpt_disk(protective=0),
            "its protective MBR entry starts at sector 0, expected 1",
        ),
        (lambda: gpt_disk(size=256), "Linux ignores the GPT: its entries have 256 bytes, expected 128"),
        (lambda: gpt_disk(size=4096, count=9), "Linux ignores the GPT: its entries have 4096 bytes, expected 128"),
        (with_first, "after partition 1, an extended partition reaches further"),
    ],
)
def test_good_tables_in_which_nothing_grows(make: Callable[[], MemoryDisk], message: str) -> None:
    disk = make()
    with pytest.raises(NothingToGrowError, match=message):
        grow_last_partition(disk)


@pytest.mark.parametrize("own", [512, 4096])
@pytest.mark.parametrize("other", [512, 1024, 2048, 4096])
def test_a_gpt_for_other_sectors_is_left(own: int, other: int) -> None:
    disk = MemoryDisk(SIZE, sector_size=other)
    gpt(disk, [(40, 60)], sectors=500)
    disk.sector_size = own
    before = bytes(disk.data)
    if own == other:
        assert grow_last_partition(disk)
        return
    message = f"found a GPT for sectors of {other} bytes, while the disk has sectors of {own}"
    with pytest.raises(NothingToGrowError, match=message):
        grow_last_partition(disk)
    assert bytes(disk.data) == before


def test_changed_bytes_never_do_harm() -> None:
    """Whatever the table says: what is grown keeps every partition's bytes, and what is not is left alone."""
    rng = random.Random(53)
    logical = MemoryDisk(SIZE, fill=0xAA)
    with_logical(logical, (10, 3000), [(11, 500), (600, 700), (1400, 900)], entry(LINUX, 4000, 500))
    seeds = [mbr_disk(entry(LINUX, 63, 900), entry(0x82, 2000, 500)), logical, gpt_disk((40, 400), (2048, 3000))]
    grown = refused = 0
    for seed in seeds:
        clean = bytes(seed.data)
        for _ in range(400):
            disk = MemoryDisk(0)
            disk.data = bytearray(clean)
            for _ in range(rng.randint(1, 3)):
                place = rng.choice((rng.randrange(446, 512), rng.randrange(512, 1500), 5120 + rng.randrange(446, 512)))
                disk.data[place] = rng.choice((0, 1, 5, 0x80, 0xFF, rng.randrange(256)))
            try:
                grown += check_growth(disk) is not None
            except (PartitionError, NothingToGrowError):
                refused += 1
    assert grown > 50
    assert refused > 50
