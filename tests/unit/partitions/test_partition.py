# SPDX-License-Identifier: MIT
"""Partitions that no partition table can hold are refused with a message."""

from __future__ import annotations

import os
import resource

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DoesNotFitError, PartitionError
from pydiskimg.partitions.make import Content, NewPartition, plan_partition_table
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.units import MIB, TIB

LINUX = NewPartition(Content.LINUX, 100 * MIB)


def test_a_disk_too_small_is_refused_with_both_sizes() -> None:
    with pytest.raises(
        DoesNotFitError, match=r"need at least 106954752 bytes \(102 MiB\), the disk has 50 MiB|52428800"
    ):
        plan_partition_table(50 * MIB, 512, [LINUX, NewPartition(Content.LINUX)])


@pytest.mark.parametrize("size", [0, 1, 512, MIB, MIB + 1])
def test_tiny_disks(size: int) -> None:
    with pytest.raises(DoesNotFitError):
        plan_partition_table(size, 512, [NewPartition(Content.LINUX)])


def test_limits() -> None:
    with pytest.raises(PartitionError, match="an MBR holds 4 partitions, 5 were requested"):
        plan_partition_table(TIB, 512, [LINUX] * 5)
    with pytest.raises(PartitionError, match="only the last partition"):
        plan_partition_table(TIB, 512, [NewPartition(Content.LINUX), LINUX])


@pytest.mark.parametrize(("size", "label"), [(TIB, "dos"), (2 * TIB - 512, "dos"), (2 * TIB, "gpt")])
def test_which_table_is_made_when_none_is_named(size: int, label: str) -> None:
    assert plan_partition_table(size, 512, [LINUX]).label == label
    assert plan_partition_table(size, 512, [LINUX], label="gpt").partitions[0].content is Content.BIOS_BOOT
    if label == "gpt":
        with pytest.raises(
            PartitionError, match=r"an MBR describes disks below 2 TiB, the disk has .*; make a GPT instead"
        ):
            plan_partition_table(size, 512, [LINUX], label="dos")


def test_only_a_disk_of_the_planned_size_gets_the_table() -> None:
    table = plan_partition_table(10 * MIB, 512, [NewPartition(Content.LINUX)])
    with pytest.raises(PartitionError, match="planned for 10485760 bytes"):
        table.write(MemoryDisk(11 * MIB))
    with pytest.raises(PartitionError, match="sectors of 4096"):
        table.write(MemoryDisk(10 * MIB, sector_size=4096))


def test_few_bytes_are_written_and_the_environment_is_as_before() -> None:
    before = dict(os.environ)
    disk = MemoryDisk(10 * MIB, fill=0xFF)
    plan_partition_table(disk.size, 512, [NewPartition(Content.LINUX)]).write(disk)
    assert disk.bytes_written == 512
    assert dict(os.environ) == before


def test_two_tables_differ_in_their_identifier() -> None:
    first, second = (plan_partition_table(10 * MIB, 512, [NewPartition(Content.LINUX)]) for _ in range(2))
    assert first.blocks[0][1][440:444] != second.blocks[0][1][440:444]


def test_what_libparted_cannot_do_is_a_sentence() -> None:
    """No descriptor is left for it to open the file that it writes; each of its failures has a class of its own."""
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, before[1]))
    try:
        with pytest.raises(PartitionError, match=r"^libparted cannot make the partition table: .*Too many open files"):
            plan_partition_table(10 * MIB, 512, [NewPartition(Content.LINUX)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("label", ["dos", "gpt"])
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_partition_is_known_by_its_uuid_before_the_table_is_written(label: str, sector_size: int) -> None:
    disk = MemoryDisk(400 * MIB, sector_size=sector_size)
    table = plan_partition_table(disk.size, sector_size, [LINUX, NewPartition(Content.LINUX)], label=label)
    table.write(disk)
    found = {partition.number: partition.uuid for partition in read_partition_table(disk, sector_size=sector_size)}
    assert {partition.number: table.partuuid(partition.number) for partition in table.partitions} == found
