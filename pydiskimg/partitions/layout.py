# SPDX-License-Identifier: MIT
"""The on-disk structures of partition tables: MBR (UEFI 2.10, section 5.2) and GPT (section 5.3); little-endian."""

from __future__ import annotations

from pydiskimg.records import Record
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# The disk's first sector. An extended boot record has its entries and signature at the same offsets.
MBR = Record("MBR", "<", 512, """
    000 440s BootCode
    1b8 I    UniqueMBRDiskSignature
    1bc H    Unknown
    1be 64s  PartitionRecord           four of MBR_ENTRY
    1fe 2s   Signature
""")  # fmt: skip
MBR_ENTRY = Record("MBR partition record", "<", 16, """
    0 B  BootIndicator                 0x80: bootable
    1 3s StartingCHS
    4 B  OSType
    5 3s EndingCHS
    8 I  StartingLBA                   sectors; in an extended boot record relative to it
    c I  SizeInLBA                     sectors
""")  # fmt: skip
MBR_SLOTS = 4
BOOTABLE = 0x80  # BootIndicator
PROTECTIVE = 0xEE
EXTENDED = frozenset({0x05, 0x0F, 0x85})

# In sector 1 or, as a backup, in the last sector.
GPT_HEADER = Record("GPT header", "<", 92, """
    00 8s  Signature
    08 I   Revision
    0c I   HeaderSize                  92 to one sector
    10 I   HeaderCRC32                 over HeaderSize bytes, itself taken as zero
    14 I   Reserved
    18 Q   MyLBA
    20 Q   AlternateLBA
    28 Q   FirstUsableLBA
    30 Q   LastUsableLBA
    38 16s DiskGUID
    48 Q   PartitionEntryLBA
    50 I   NumberOfPartitionEntries
    54 I   SizeOfPartitionEntry        128 * 2**n
    58 I   PartitionEntryArrayCRC32
""")  # fmt: skip
GPT_SIGNATURE = b"EFI PART"
BIOS_BOOTABLE = 1 << 2  # of Attributes: "legacy BIOS bootable"
GPT_ENTRY = Record("GPT partition entry", "<", 128, """
    00 16s PartitionTypeGUID           zero: unused
    10 16s UniquePartitionGUID
    20 Q   StartingLBA
    28 Q   EndingLBA                   inclusive
    30 Q   Attributes
    38 72s PartitionName               UTF-16LE
""")  # fmt: skip


def mbr_entries(sector: bytes | bytearray) -> list[dict[str, Any]]:
    """Return the four entries of an MBR or extended boot record: the fields of MBR_ENTRY."""
    start = MBR.offsets["PartitionRecord"]
    return [MBR_ENTRY.unpack(sector, start + MBR_ENTRY.size * slot) for slot in range(MBR_SLOTS)]


def put_mbr_entry(sector: bytearray, slot: int, **fields: int | bytes) -> None:
    """Change fields of one of the four entries in place."""
    MBR_ENTRY.put(sector, fields, MBR.offsets["PartitionRecord"] + MBR_ENTRY.size * slot)


def is_partitioned(entries: list[dict[str, Any]]) -> bool:
    """False for the boot sector of a file system, which also has the signature: its "entries" contain text or code."""
    return all(entry["BootIndicator"] in (0, 0x80) for entry in entries)


def has_protective(entries: list[dict[str, Any]]) -> bool:
    """True when an entry of an MBR announces a GPT."""
    return any(entry["OSType"] == PROTECTIVE for entry in entries)


def gpt_header_crc(header: bytes | bytearray) -> int:
    """Return the CRC of a header's bytes (HeaderSize of them), computed as the specification says."""
    import zlib  # imported here: most disks have no GPT

    field = GPT_HEADER.slice_of("HeaderCRC32")
    return zlib.crc32(header[: field.start] + bytes(4) + header[field.stop :])


def guid_text(raw: bytes) -> str:
    """Return a GUID as text, in lower case: its first three groups are little-endian numbers."""
    digits = (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex()  # the module uuid takes long to import
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def gpt_entries(array: bytes | bytearray) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number, from 1, and the fields of each entry that is in use; most are not."""
    kind, unused = GPT_ENTRY.slice_of("PartitionTypeGUID"), bytes(16)
    for index, at in enumerate(range(0, len(array) - GPT_ENTRY.size + 1, GPT_ENTRY.size)):
        if array[at : at + kind.stop] != unused:
            yield index + 1, GPT_ENTRY.unpack(array, at)
