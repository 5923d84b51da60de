# SPDX-License-Identifier: MIT
"""A provisional table, for an incomplete disk: no boot code, and MBR partitions of a type that nothing mounts.

For tools that need a table while a disk is still being changed. The entries of a GPT, which have checksums, and a disk
without a table stay unchanged.
"""

from __future__ import annotations

from pydiskimg.partitions.layout import EXTENDED, MBR, has_protective, is_partitioned, mbr_entries, put_mbr_entry
from pydiskimg.partitions.partition import has_mbr
from pydiskimg.protocols import Disk, read_bytes

DIAGNOSTICS = 0x12
_BOOT_CODE = MBR.slice_of("BootCode")  # it does not check the types of partitions
_TABLE = MBR.slice_of("PartitionRecord")


def provisional(head: bytes) -> bytes:
    """Return the beginning of a disk with a provisional table, or unchanged if it has no table."""
    if not has_mbr(head):
        return head
    entries = mbr_entries(head)
    if not is_partitioned(entries) or not any(entry["OSType"] for entry in entries):
        return head
    changed = bytearray(head)
    MBR.put(changed, {"BootCode": b""})
    if not has_protective(entries):
        for slot, entry in enumerate(entries):
            is_data = entry["OSType"] and entry["OSType"] not in EXTENDED
            put_mbr_entry(changed, slot, BootIndicator=0, OSType=DIAGNOSTICS if is_data else entry["OSType"])
    return bytes(changed)


def finish(disk: Disk, head: bytes) -> None:
    """Replace the provisional first sector by that of head, the disk's final beginning, and flush.

    Boot code that was written meanwhile stays, and so does a table that another program has changed.
    """
    disk.flush()
    sector = bytearray(read_bytes(disk, 0, disk.sector_size))
    before = provisional(head)
    for part in (_BOOT_CODE, _TABLE):
        if sector[part] == before[part]:
            sector[part] = head[part]
    disk.write(0, sector)
    disk.flush()
