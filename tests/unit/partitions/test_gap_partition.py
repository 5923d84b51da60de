# SPDX-License-Identifier: MIT
"""One more partition in a GPT: where it goes, what stays, what is refused, and every instant in between."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import PartitionError
from pydiskimg.partitions.gap_partition import GapPartition, NoGapError, plan_gap_partition
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import read_partition_table
from tests.fixtures.partition_tables import entry, gpt, record

TYPE = uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
KIB, MIB = 1 << 10, 1 << 20
SECTORS = 40960  # of 512 bytes
DEBIAN = ((2048 * 5, SECTORS - 2048), *[(0, 0)] * 12, (2048, 4095), (4096, 10239))


def planned(disk: MemoryDisk, *, smallest: int = 64 * KIB, largest: int = MIB) -> GapPartition:
    return plan_gap_partition(
        disk, disk.sector_size, type_guid=TYPE, identifier=ID, name="cidata", smallest=smallest, largest=largest
    )


def disk_of(
    *partitions: tuple[int, int], sector: int = 512, sectors: int = SECTORS, size: int = 0, **lies: int
) -> MemoryDisk:
    disk = MemoryDisk(size or sectors * sector, sector_size=sector)
    gpt(disk, partitions, sectors=sectors, **lies)
    return disk


def table(disk: MemoryDisk) -> list[Partition]:
    return read_partition_table(disk, sector_size=disk.sector_size, backup=False)


@pytest.mark.parametrize("first_usable", [34, 2048])
def test_in_front_of_the_first_partition(first_usable: int) -> None:
    disk = disk_of(*DEBIAN, first_usable=first_usable)
    before = table(disk)
    plan = planned(disk)
    assert plan.partition == Partition(2, 40 * 512, (2048 - 40) * 512, str(TYPE).upper())
    assert table(disk) == before
    plan.write(disk)
    after = table(disk)
    assert [part for part in after if part.number != 2] == before
    assert after[1] == plan.partition
    assert (after[1].uuid, after[1].name) == (str(ID), "cidata")
    # The backup says the same.
    disk.write(512, bytes(512))
    assert read_partition_table(disk) == after


def test_sectors_of_4096_bytes() -> None:
    disk = disk_of((256, 4000), sector=4096, sectors=5120)
    plan = planned(disk)
    assert (plan.partition.start, plan.partition.length) == (6 * 4096, 250 * 4096)
    plan.write(disk)
    assert [part.number for part in table(disk)] == [1, 2]


def test_the_first_gap_that_is_large_enough() -> None:
    partitions = ((50, 100), (200, 4095), (4096, 6143), (8192, 10000), (20000, 30000))
    plan = planned(disk_of(*partitions))
    assert (plan.partition.number, plan.partition.start) == (6, 6144 * 512)
    assert plan.partition.length == MIB
    assert planned(disk_of(*partitions), smallest=8 * KIB).partition.start == 104 * 512
    small = planned(disk_of(*partitions), largest=100 * KIB + 5).partition
    assert small.length == 100 * KIB


def test_a_gap_with_bytes_in_it_is_left() -> None:
    disk = disk_of((2048, 4095), (8192, 30000))
    disk.write(700 * 512, b"\x01")
    assert planned(disk).partition.start == 4096 * 512
    disk.write(4096 * 512, b"\x01")
    with pytest.raises(NoGapError, match="no gap of 65536 bytes, all of them zero"):
        planned(disk)


def test_nothing_behind_the_last_partition() -> None:
    with pytest.raises(NoGapError, match="no gap"):
        planned(disk_of((34, 4095)))
    with pytest.raises(NoGapError, match="no gap"):
        planned(disk_of())


def test_the_backup_moves_to_the_end_of_a_larger_disk() -> None:
    disk = disk_of(*DEBIAN, size=60000 * 512)
    plan = planned(disk)
    plan.write(disk)
    assert disk.data[-512:-504] == b"EFI PART"
    disk.write(512, bytes(512))
    assert [part.number for part in read_partition_table(disk)] == [1, 2, 14, 15]


def _mbr(disk: MemoryDisk) -> None:
    disk.write(0, record(entry(0x83, 2048, 4096)))


def _no_table(disk: MemoryDisk) -> None:
    disk.write(0, bytes(512))


def _hybrid(disk: MemoryDisk) -> None:
    disk.write(0, record(entry(0xEE, 1, 2047), entry(0x83, 2048, 2048)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [(_mbr, "the disk has no GPT"), (_no_table, "the disk has no GPT"), (_hybrid, "hybrid MBR")],
)
def test_other_tables(change: Callable[[MemoryDisk], None], expected: str) -> None:
    disk = disk_of(*DEBIAN)
    change(disk)
    with pytest.raises(NoGapError, match=expected):
        planned(disk)


def test_no_entry_is_free() -> None:
    with pytest.raises(NoGapError, match="all 4 entries"):
        planned(disk_of(*((2048 * at, 2048 * at + 9) for at in range(1, 5)), count=4))


def test_no_room_for_the_backup() -> None:
    with pytest.raises(NoGapError, match="leaves no room for the backup"):
        planned(disk_of((2048, SECTORS - 10), last_usable=SECTORS - 5))


def test_other_sectors_and_a_disk_of_nothing() -> None:
    disk = disk_of(*DEBIAN)
    disk.sector_size = 4096
    with pytest.raises(NoGapError, match="for sectors of 512 bytes"):
        planned(disk)
    with pytest.raises(NoGapError, match="too small"):
        planned(MemoryDisk(512))
    with pytest.raises(NoGapError, match="starts at sector 2"):
        planned(disk_of(*DEBIAN, protective=2))


@pytest.mark.parametrize("lies", [{"crc": 7}, {"array_crc": 7}, {"array": 1}, {"stated_count": 0}])
def test_damaged_tables(lies: dict[str, int]) -> None:
    with pytest.raises(PartitionError, match="the GPT is damaged"):
        planned(disk_of(*DEBIAN, **lies))


def test_overlapping_partitions_are_refused() -> None:
    with pytest.raises(PartitionError, match="overlaps"):
        planned(disk_of((2048, 4095), (4000, 8191)))


@pytest.mark.parametrize("size", [6000 * 512, 8000 * 512])
def test_every_instant_has_a_table(size: int) -> None:
    """Power fails between two sectors of any write: what Linux reads is the old table or the new one."""
    disk = disk_of((2048, 4095), (4096, 5000), sectors=6000, size=size)
    old = table(disk)
    plan = planned(disk)
    plan.write(disk)
    new, done = table(disk), disk_of((2048, 4095), (4096, 5000), sectors=6000, size=size)
    for offset, contents in plan.writes:
        for length in range(0, len(contents) + 1, 512):
            torn = MemoryDisk(size)
            torn.write(0, bytes(done.data))
            torn.write(offset, contents[:length])
            assert table(torn) in (old, new)
        done.write(offset, contents)
    assert table(done) == new
