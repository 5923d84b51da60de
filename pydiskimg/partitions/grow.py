# SPDX-License-Identifier: MIT
"""Grow the last partition to the end of the disk: only the table is changed."""

from __future__ import annotations

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.grow_gpt import plan_gpt_growth
from pydiskimg.partitions.grow_mbr import plan_mbr_growth
from pydiskimg.partitions.growth_plan import NothingToGrowError, PartitionGrowth
from pydiskimg.partitions.layout import GPT_SIGNATURE, MBR, has_protective, is_partitioned, mbr_entries
from pydiskimg.partitions.partition import has_mbr
from pydiskimg.partitions.read import gpt_sector_size, other_sectors, protective_problem
from pydiskimg.protocols import Disk, Source, read_bytes


def grow_last_partition(disk: Disk) -> PartitionGrowth | None:
    """Let the partition that ends last reach the end of the disk; None if there is none or it already does.

    With an MBR, the partition ends where the table can count no further (2 TiB with sectors of 512 bytes). Number,
    start, type, flags, names, identifiers and boot code stay. An interruption at any instant leaves a valid table, the
    old or the new one, and the contents of the partition are not changed.

    Raises PartitionError for a table that is damaged, hostile or ambiguous, NothingToGrowError for a valid one in which
    nothing can grow; in both cases nothing was written. Raises StorageError when a write fails.
    """
    growth = plan_partition_growth(disk, disk.sector_size)
    if growth is None or not growth.writes:
        return None
    growth.write(disk)
    return growth


def plan_partition_growth(source: Source, sector_size: int) -> PartitionGrowth | None:
    """Return the changes that grow_last_partition() would make to a table with sectors of sector_size (bytes).

    Return None if there is no table with a partition. Raises as grow_last_partition() does; nothing is written.
    """
    if source.size < 2 * max(sector_size, MBR.size):
        return None
    sector = read_bytes(source, 0, MBR.size)
    if not has_mbr(sector):
        return None
    entries = mbr_entries(sector)
    if has_protective(entries):
        problem = protective_problem(entries)
        if problem is not None:
            raise NothingToGrowError(problem)
        _refuse_other_sectors(source, sector_size)
        return plan_gpt_growth(source, sector_size)
    return plan_mbr_growth(source, sector_size) if is_partitioned(entries) else None


def _refuse_other_sectors(source: Source, sector_size: int) -> None:
    found = gpt_sector_size(source)
    if found is None:
        raise PartitionError(f"{source.name}: the GPT is damaged (no header at byte {sector_size}); nothing was grown")
    if found != sector_size and read_bytes(source, sector_size, len(GPT_SIGNATURE)) != GPT_SIGNATURE:
        raise NothingToGrowError(f"found {other_sectors('a GPT', found, sector_size)}")
