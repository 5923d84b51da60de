# SPDX-License-Identifier: MIT
"""Open the partition table of a disk to change it."""

from __future__ import annotations

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.change.gpt import ChangedGpt
from pydiskimg.partitions.change.mbr import ChangedMbr
from pydiskimg.partitions.change.table import ChangedTable
from pydiskimg.partitions.layout import MBR, has_protective, is_partitioned, mbr_entries
from pydiskimg.partitions.partition import has_mbr
from pydiskimg.partitions.read import gpt_sector_size, other_sectors_error
from pydiskimg.protocols import Disk, read_bytes


def move_end(disk: Disk, end: int) -> None:
    """Adapt the partition table to a disk of end bytes, so that disk can be cut there; durable on return.

    Raises PartitionError as open_table() does, and if partitions reach further.
    """
    open_table(disk).moved_to(end)


def open_table(disk: Disk) -> ChangedTable:
    """Return the partition table of disk for changes; disk stays the caller's.

    No other program may change the table meanwhile. Raises PartitionError for a disk without a table, a table for
    sectors of another size than the disk's, and a damaged table.
    """
    sector = read_bytes(disk, 0, MBR.size) if disk.size >= MBR.size else b""
    entries = mbr_entries(sector) if has_mbr(sector) else []
    if not entries or not is_partitioned(entries):
        raise PartitionError(f"{disk.name}: has no partition table; make one with: pydiskimg partition create")
    if not has_protective(entries):
        return ChangedMbr(disk, disk.sector_size)
    size = gpt_sector_size(disk)
    if size is not None and size != disk.sector_size:
        raise other_sectors_error(disk, "a GPT", size)
    return ChangedGpt(disk, disk.sector_size)
