# SPDX-License-Identifier: MIT
"""The table of a disk, opened to be changed."""

from __future__ import annotations

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.change.gpt import ChangedGpt
from pydiskimg.partitions.change.mbr import ChangedMbr
from pydiskimg.partitions.change.table import ChangedTable
from pydiskimg.partitions.layout import MBR, has_protective, is_partitioned, mbr_entries
from pydiskimg.partitions.partition import has_mbr
from pydiskimg.partitions.read import gpt_sector_size, other_sectors
from pydiskimg.protocols import Disk, read_bytes


def move_end(disk: Disk, end: int) -> None:
    """Let the table of disk be that of a disk of end bytes, which may be cut there then; durable on return.

    Raises PartitionError as open_table() does, and where partitions reach further.
    """
    table = open_table(disk)
    if isinstance(table, ChangedGpt):
        table.moved_to(end)
    elif table.end_of_disk > end:
        raise PartitionError(f"{disk.name}: its partitions need {table.end_of_disk} bytes, and {end} are to be left")


def open_table(disk: Disk) -> ChangedTable:
    """Return the partition table of disk, which stays the caller's, as it can be changed.

    Nothing else may change the table meanwhile. Raises PartitionError for a disk without a table, one for sectors of
    another size than the disk's, and one that is damaged.
    """
    sector = read_bytes(disk, 0, MBR.size) if disk.size >= MBR.size else b""
    entries = mbr_entries(sector) if has_mbr(sector) else []
    if not entries or not is_partitioned(entries):
        raise PartitionError(f"{disk.name}: has no partition table; make one with: pydiskimg partition create")
    if not has_protective(entries):
        return ChangedMbr(disk, disk.sector_size)
    size = gpt_sector_size(disk)
    if size is not None and size != disk.sector_size:
        raise PartitionError(f"{disk.name}: has {other_sectors('a GPT', size, disk.sector_size)}")
    return ChangedGpt(disk, disk.sector_size)
