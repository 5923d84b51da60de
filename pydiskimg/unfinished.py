# SPDX-License-Identifier: MIT
"""An MBR that says "not ready": the primary partitions in their places, of a type that nothing mounts or boots.

For tools that need a table while a disk is still being changed. A GPT, whose entries are under checksums, and a disk
without a table stay as they are.
"""

from __future__ import annotations

from pydiskimg.partition_reader import EXTENDED, MBR_ENTRIES_OFFSET, MBR_ENTRY, MBR_SIGNATURE, PROTECTIVE
from pydiskimg.protocols import Disk, read_bytes

DIAGNOSTICS = 0x12
_TABLE = slice(MBR_ENTRIES_OFFSET, MBR_ENTRIES_OFFSET + 4 * MBR_ENTRY.size)


def unfinished(head: bytes) -> bytes:
    """Return the beginning of a disk with its MBR marked unfinished, or as it is where there is no MBR."""
    if head[510:512] != MBR_SIGNATURE:
        return head
    entries = [list(entry) for entry in MBR_ENTRY.iter_unpack(head[_TABLE])]
    if any(entry[0] not in (0, 0x80) or entry[2] == PROTECTIVE for entry in entries):
        return head
    for entry in entries:
        entry[0] = 0
        if entry[2] and entry[2] not in EXTENDED:
            entry[2] = DIAGNOSTICS
    return head[: _TABLE.start] + b"".join(MBR_ENTRY.pack(*entry) for entry in entries) + head[_TABLE.stop :]


def finish(disk: Disk, head: bytes) -> None:
    """Put the table of head, the beginning of the disk as it is to be, in place of the unfinished one, and flush.

    Boot code that was written meanwhile stays, and so does a table that somebody has changed.
    """
    table = unfinished(head)[_TABLE]
    if table != head[_TABLE] and read_bytes(disk, _TABLE.start, len(table)) == table:
        disk.write(_TABLE.start, head[_TABLE])
    disk.flush()
