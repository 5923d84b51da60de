# SPDX-License-Identifier: MIT
"""The identifiers of a new table follow from a UUID, and the table stays one that our reader believes."""

from __future__ import annotations

from uuid import UUID

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.partitions.identifiers import with_identifiers
from pydiskimg.partitions.make import Content, NewPartition, PartitionTable, plan_partition_table
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import read_bytes
from pydiskimg.regions.region import Region
from pydiskimg.units import MIB

ONE, OTHER = UUID(int=1), UUID(int=2)
SIZE = 64 * MIB
WANTED = [NewPartition(Content.SWAP, 8 * MIB), NewPartition(Content.LINUX, bootable=True)]


def table(label: str, seed: UUID, sector_size: int = 512) -> PartitionTable:
    return with_identifiers(plan_partition_table(SIZE, sector_size, WANTED, label=label), seed)


@pytest.mark.parametrize(("label", "sector_size"), [("dos", 512), ("gpt", 512), ("gpt", 4096)])
def test_the_same_uuid_gives_the_same_table(label: str, sector_size: int) -> None:
    first = table(label, ONE, sector_size)
    assert first.blocks == table(label, ONE, sector_size).blocks
    other = table(label, OTHER, sector_size)
    assert first.blocks != other.blocks
    numbers = [partition.number for partition in first.partitions]
    found = {made.partuuid(number) for made in (first, other) for number in numbers}
    assert len(found) == 2 * len(numbers)


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_both_copies_of_a_gpt_are_sound(sector_size: int) -> None:
    disk = MemoryDisk(SIZE, sector_size=sector_size)
    made = table("gpt", ONE, sector_size)
    made.write(disk)
    expected = [made.partuuid(partition.number).lower() for partition in made.partitions]
    found = read_partition_table(disk, sector_size=sector_size)
    assert [partition.uuid.lower() if partition.uuid else None for partition in found] == expected
    Region(disk, sector_size, sector_size).write(0, bytes(sector_size))  # the backup alone
    assert read_partition_table(disk, sector_size=sector_size) == found


def test_the_signature_of_an_mbr_is_never_zero() -> None:
    disk = MemoryDisk(SIZE)
    made = table("dos", ONE)
    made.write(disk)
    signature = int.from_bytes(read_bytes(disk, 440, 4), "little")
    assert signature & 1
    assert made.partuuid(2) == f"{signature:08x}-02"
