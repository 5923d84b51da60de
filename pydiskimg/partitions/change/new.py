# SPDX-License-Identifier: MIT
"""An empty partition table, for a disk whose partitions are added one by one."""

from __future__ import annotations

import secrets
import zlib
from uuid import UUID, uuid4

from pydiskimg.disks.wipe import wipe_partition_table
from pydiskimg.errors import DoesNotFitError, PartitionError
from pydiskimg.partitions.change.open import open_table
from pydiskimg.partitions.change.table import ChangedTable
from pydiskimg.partitions.layout import (
    GPT_ENTRY,
    GPT_HEADER,
    GPT_SIGNATURE,
    MBR,
    PROTECTIVE,
    gpt_header_crc,
    put_mbr_entry,
)
from pydiskimg.partitions.make import MBR_LIMIT
from pydiskimg.partitions.partition import MBR_SIGNATURE
from pydiskimg.protocols import Disk
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import MIB, format_bytes

if TYPE_CHECKING:
    from pydiskimg.partitions.types import Label

_ENTRIES = 128
_REVISION = 0x10000
_MAX_SECTORS = 0xFFFFFFFF  # of the protective entry
_SMALLEST = 4 * MIB  # the table's ends, and a partition between them


def new_table(disk: Disk, label: Label | None = None, *, disk_id: str | None = None) -> ChangedTable:
    """Write an empty partition table to disk, and return it. The contents of the disk's first and last MiB are lost.

    label is "dos" (an MBR) or "gpt"; None means an MBR below 2 TiB, otherwise a GPT. disk_id is a GPT's UUID, or an
    MBR's signature such as 0x12345678; random by default. Raises PartitionError if the label does not fit the disk or
    disk_id the label, DoesNotFitError for a disk of less than 4 MiB.
    """
    label = label or ("dos" if disk.size <= MBR_LIMIT else "gpt")
    if disk.size < _SMALLEST:
        raise DoesNotFitError(
            f"{disk.name}: has {format_bytes(disk.size)}, a partition table needs {format_bytes(_SMALLEST)}",
            needed=_SMALLEST,
            available=disk.size,
        )
    blocks = _mbr(disk, disk_id) if label == "dos" else _gpt(disk, disk_id)
    wipe_partition_table(disk)
    for offset, contents in blocks:
        disk.write(offset, contents)
        disk.flush()
    return open_table(disk)


def _mbr(disk: Disk, disk_id: str | None) -> list[tuple[int, bytes]]:
    try:
        signature = int(disk_id, 16) if disk_id is not None else secrets.randbelow(_MAX_SECTORS) + 1
    except ValueError:
        signature = -1
    if not 0 <= signature <= _MAX_SECTORS:
        raise PartitionError(f"{disk.name}: the ID of an MBR must be a number of 32 bits such as 0x12345678")
    sector = bytearray(MBR.size)
    MBR.put(sector, {"UniqueMBRDiskSignature": signature, "Signature": MBR_SIGNATURE})
    return [(0, bytes(sector))]


def _gpt(disk: Disk, disk_id: str | None) -> list[tuple[int, bytes]]:
    """Return the blocks of a GPT in the order in which they are written: the protective MBR is last."""
    size = disk.sector_size
    last = disk.size // size - 1
    array = bytes(_ENTRIES * GPT_ENTRY.size)
    sectors = -(-len(array) // size)
    try:
        guid = UUID(disk_id) if disk_id is not None else uuid4()
    except ValueError:
        raise PartitionError(f"{disk.name}: the ID of a GPT must be a UUID") from None
    protective = bytearray(MBR.size)
    MBR.put(protective, {"Signature": MBR_SIGNATURE})
    put_mbr_entry(
        protective,
        0,
        StartingCHS=b"\0\2\0",
        OSType=PROTECTIVE,
        EndingCHS=b"\xff" * 3,
        StartingLBA=1,
        SizeInLBA=min(last, _MAX_SECTORS),
    )
    common: dict[str, int | bytes] = {
        "Signature": GPT_SIGNATURE,
        "Revision": _REVISION,
        "HeaderSize": GPT_HEADER.size,
        "FirstUsableLBA": 2 + sectors,
        "LastUsableLBA": last - sectors - 1,
        "DiskGUID": guid.bytes_le,
        "NumberOfPartitionEntries": _ENTRIES,
        "SizeOfPartitionEntry": GPT_ENTRY.size,
        "PartitionEntryArrayCRC32": zlib.crc32(array),
    }
    copies = (
        {"MyLBA": last, "AlternateLBA": 1, "PartitionEntryLBA": last - sectors},
        {"MyLBA": 1, "AlternateLBA": last, "PartitionEntryLBA": 2},
    )
    headers = [(last * size, _sealed({**common, **copies[0]}, size)), (size, _sealed({**common, **copies[1]}, size))]
    return [*headers, (0, bytes(protective))]


def _sealed(fields: dict[str, int | bytes], sector_size: int) -> bytes:
    header = bytearray(GPT_HEADER.size)
    GPT_HEADER.put(header, fields)
    GPT_HEADER.put(header, {"HeaderCRC32": gpt_header_crc(header)})
    return bytes(header).ljust(sector_size, b"\0")
