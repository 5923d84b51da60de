# SPDX-License-Identifier: MIT
"""A table that says "not ready": no boot code, and in an MBR the primary partitions of a type that nothing mounts.

For tools that need a table while a disk is still being changed. The entries of a GPT, which are under checksums, and a
disk without a table stay as they are.
"""

from __future__ import annotations

from pydiskimg.partitions.read import EXTENDED, MBR_ENTRIES_OFFSET, MBR_ENTRY, MBR_SIGNATURE, PROTECTIVE
from pydiskimg.protocols import Disk, read_bytes

DIAGNOSTICS = 0x12
_BOOT_CODE = slice(0, 440)  # it does not look at the types of partitions
_TABLE = slice(MBR_ENTRIES_OFFSET, MBR_ENTRIES_OFFSET + 4 * MBR_ENTRY.size)


def provisional(head: bytes) -> bytes:
    """Return the beginning of a disk with a provisional table, or as it is where there is no table."""
    if head[510:512] != MBR_SIGNATURE:
        return head
    entries = [list(entry) for entry in MBR_ENTRY.iter_unpack(head[_TABLE])]
    if any(entry[0] not in (0, 0x80) for entry in entries) or not any(entry[2] for entry in entries):
        return head
    head = bytes(_BOOT_CODE.stop) + head[_BOOT_CODE.stop :]
    if any(entry[2] == PROTECTIVE for entry in entries):
        return head
    for entry in entries:
        entry[0] = 0
        if entry[2] and entry[2] not in EXTENDED:
            entry[2] = DIAGNOSTICS
    return head[: _TABLE.start] + b"".join(MBR_ENTRY.pack(*entry) for entry in entries) + head[_TABLE.stop :]


def finish(disk: Disk, head: bytes) -> None:
    """Put the first sector of head, the disk's beginning as it is to be, in place of the provisional one, and flush.

    Boot code that was written meanwhile stays, and so does a table that somebody has changed.
    """
    disk.flush()
    sector = bytearray(read_bytes(disk, 0, disk.sector_size))
    before = provisional(head)
    for part in (_BOOT_CODE, _TABLE):
        if sector[part] == before[part]:
            sector[part] = head[part]
    disk.write(0, sector)
    disk.flush()
