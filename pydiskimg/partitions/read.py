# SPDX-License-Identifier: MIT
"""Read the partition table of a disk that a guest may have written: MBR with logical partitions, and GPT.

libparted is not used, because the bytes may be hostile and come from any Source. MBR: UEFI 2.10, section 5.2, and the
extended boot records that every PC system writes; GPT: UEFI 2.10, section 5.3.
"""

from __future__ import annotations

import zlib

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.layout import (
    BIOS_BOOTABLE,
    BOOTABLE,
    EXTENDED,
    GPT_ENTRY,
    GPT_HEADER,
    GPT_SIGNATURE,
    MBR,
    PROTECTIVE,
    gpt_entries,
    gpt_header_crc,
    guid_text,
    has_protective,
    is_partitioned,
    mbr_entries,
)
from pydiskimg.partitions.partition import SECTOR_SIZES, Partition, has_mbr
from pydiskimg.protocols import Disk, Source, read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pydiskimg.partitions.types import Label

# The kernel's own limits are 256 and 128; no system writes a larger table.
MAX_LOGICAL = 256
MAX_GPT_ENTRIES = 1024


def read_partition_table(source: Source, *, sector_size: int = 512, backup: bool = True) -> list[Partition]:
    """Return the partitions of source in the order of their numbers; an empty list where there is no partition table.

    The table may be hostile: an MBR with logical partitions or a GPT (UEFI 2.10, sections 5.2 and 5.3), of which at
    most 8 MiB are read. Extended partitions are left out, their logical partitions are listed. sector_size is bytes:
    512, 1024, 2048 or 4096; find_volumes() tries them all. backup allows the second copy of a GPT to be read where the
    first one is damaged, which Linux does not do.

    Raises PartitionError for a partition that reaches beyond the end of the disk, a circular chain of extended boot
    records, a GPT of which both copies are damaged, one that Linux ignores, and one for sectors of another size.

    >>> from pydiskimg import MemoryDisk, read_partition_table
    >>> read_partition_table(MemoryDisk(1 << 20))
    []
    """
    return list(each_partition(source, sector_size=sector_size, backup=backup))


def each_partition(source: Source, *, sector_size: int = 512, backup: bool = True) -> Iterator[Partition]:
    """Yield what read_partition_table() returns, and raise its errors, each before the next record is read.

    The extended boot records of an MBR lie all over the disk.
    """
    if source.size < 2 * sector_size:
        return
    sector = read_bytes(source, 0, MBR.size)
    if not has_mbr(sector):
        return
    entries = mbr_entries(sector)
    if has_protective(entries):
        problem = protective_problem(entries)
        if problem is not None:
            raise PartitionError(f"{source.name}: {problem}")
        yield from _read_gpt(source, sector_size, backup=backup)
    elif is_partitioned(entries):
        signature = MBR.unpack(sector)["UniqueMBRDiskSignature"]
        for partition in _read_mbr(source, entries, sector_size):
            yield partition.replaced(uuid=f"{signature:08x}-{partition.number:02x}")


def protective_problem(entries: Sequence[dict[str, Any]]) -> str | None:
    """Return a clause: why Linux ignores the GPT that the entries of an MBR announce; None if it does not.

    Linux requires an entry of type 0xEE that starts at sector 1, and ignores the others (block/partitions/efi.c).
    """
    starts = [entry["StartingLBA"] for entry in entries if entry["OSType"] == PROTECTIVE]
    if 1 in starts:
        return None
    return f"Linux ignores the GPT: its protective MBR entry starts at sector {starts[0]}, expected 1"


def table_label(source: Source) -> Label | None:
    """Return the kind of partition table that the first sector of source announces, as sfdisk names it; None: none."""
    sector = read_bytes(source, 0, MBR.size) if source.size >= MBR.size else b""
    entries = mbr_entries(sector) if has_mbr(sector) else []
    if has_protective(entries):
        return "gpt"
    return "dos" if entries and is_partitioned(entries) else None


def gpt_sector_size(source: Source) -> int | None:
    """Return the sector size (bytes) for which source has a GPT, intact or not; None if there is none."""
    for size in SECTOR_SIZES:
        if source.size >= 2 * size and read_bytes(source, size, len(GPT_SIGNATURE)) == GPT_SIGNATURE:
            return size
    return None


def other_sectors(what: str, table: int, disk: int) -> str:
    """Return a clause that a partition table was made for sectors of another size than the disk has (both bytes)."""
    return f"{what} for sectors of {table} bytes, while the disk has sectors of {disk}"


def other_sectors_error(disk: Disk, what: str, table: int) -> PartitionError:
    """Return the error for a table, which what names, for sectors of table bytes, which disk does not have."""
    return PartitionError(
        f"{disk.name}: has {other_sectors(what, table, disk.sector_size)}; attach it as a device that has them: "
        f"losetup --sector-size {table}"
    )


def refuse_hybrid(source: Source, partitions: Sequence[Partition], *, sector_size: int = 512) -> None:
    """Raise PartitionError when the MBR of source has a partition that is not in its GPT.

    Firmware and systems other than Linux use the MBR then. partitions are those that read_partition_table() found.
    """
    entries = mbr_entries(read_bytes(source, 0, MBR.size)) if partitions else []
    if not has_protective(entries):
        return
    known = {(partition.start, partition.length) for partition in partitions}
    for slot, entry in enumerate(entries, start=1):
        kind, start, length = entry["OSType"], entry["StartingLBA"], entry["SizeInLBA"]
        if kind not in (0, PROTECTIVE) and (start * sector_size, length * sector_size) not in known:
            raise PartitionError(
                f"{source.name}: entry {slot} of the MBR (type {kind:#04x}, sectors {start} to {start + length}) is "
                "not a partition of the GPT, and systems differ in which table they use"
            )


def _read_mbr(source: Source, entries: Sequence[dict[str, Any]], sector_size: int) -> Iterator[Partition]:
    extended = None
    for number, entry in enumerate(entries, start=1):
        kind, start, length = entry["OSType"], entry["StartingLBA"], entry["SizeInLBA"]
        if kind in EXTENDED and length:
            extended = extended or start
        elif kind and length:
            bootable = entry["BootIndicator"] == BOOTABLE
            part = Partition(number, start * sector_size, length * sector_size, f"{kind:#04x}", bootable=bootable)
            yield _inside(source, part)
    if extended:
        yield from _read_logical(source, extended, sector_size)


def _read_logical(source: Source, extended: int, sector_size: int) -> Iterator[Partition]:
    """Follow the chain of extended boot records: each has one logical partition and the location of the next record."""
    record = extended
    number = 5
    seen = set()
    while record not in seen and number < 5 + MAX_LOGICAL:
        seen.add(record)
        logical, following = mbr_entries(extended_record(source, record, sector_size))[:2]
        kind, length = logical["OSType"], logical["SizeInLBA"] * sector_size
        if kind and length:
            start = (record + logical["StartingLBA"]) * sector_size
            bootable = logical["BootIndicator"] == BOOTABLE
            yield _inside(source, Partition(number, start, length, f"{kind:#04x}", bootable=bootable))
            number += 1
        if following["OSType"] not in EXTENDED or not following["StartingLBA"]:
            return
        record = extended + following["StartingLBA"]
    raise PartitionError(
        f"{source.name}: the chain of extended boot records is circular or longer than {MAX_LOGICAL} "
        f"(at byte {record * sector_size})"
    )


def extended_record(source: Source, record: int, sector_size: int) -> bytes:
    """Return the extended boot record in a sector. Raises PartitionError if there is none."""
    offset = record * sector_size
    if offset + MBR.size > source.size:
        raise PartitionError(
            f"{source.name}: extended boot record at byte {offset} lies beyond the end of the disk ({source.size})"
        )
    sector = read_bytes(source, offset, MBR.size)
    if not has_mbr(sector):
        raise PartitionError(
            f"{source.name}: extended boot record at byte {offset} has no signature (found "
            f"{sector[MBR.slice_of('Signature')].hex()}, expected 55aa)"
        )
    return sector


def _read_gpt(source: Source, sector_size: int, *, backup: bool) -> list[Partition]:
    problems = []
    for offset in (sector_size, source.size // sector_size * sector_size - sector_size)[: 1 + backup]:
        try:
            return list(_gpt_partitions(source, _gpt_array(source, offset, sector_size), sector_size))
        except DamagedGptError as error:
            problems.append(str(error))
    other = gpt_sector_size(source)
    if other is not None and other != sector_size:
        raise PartitionError(f"{source.name}: has {other_sectors('a GPT', other, sector_size)}")
    which = "both copies of the GPT are" if backup else "the GPT, whose backup Linux does not read, is"
    raise PartitionError(f"{source.name}: {which} damaged: {'; '.join(problems)}")


class DamagedGptError(Exception):
    """The damage of one copy of a GPT; the other copy may be sound."""


def read_gpt_header(source: Source, offset: int, sector_size: int) -> tuple[bytes, dict[str, Any]]:
    """Return a header's own bytes (HeaderSize of them) and its fields, checked except for the location of the entries.

    All that Linux checks is checked, so that a GPT that Linux ignores is not read here either (block/partitions/efi.c).
    Raises DamagedGptError.
    """
    sector = read_bytes(source, offset, sector_size)
    header = GPT_HEADER.unpack(sector)
    if header["Signature"] != GPT_SIGNATURE:
        raise DamagedGptError(f"no header at byte {offset}")
    header_size = header["HeaderSize"]
    if not GPT_HEADER.size <= header_size <= sector_size:
        raise DamagedGptError(f"header size {header_size} at byte {offset}")
    _check_crc(gpt_header_crc(sector[:header_size]), header["HeaderCRC32"], f"header at byte {offset}")
    own, first_usable, last_usable = header["MyLBA"], header["FirstUsableLBA"], header["LastUsableLBA"]
    if own != offset // sector_size:
        raise DamagedGptError(f"header of sector {own}, found in sector {offset // sector_size}")
    if not first_usable <= last_usable < source.size // sector_size:
        raise DamagedGptError(f"usable sectors {first_usable} to {last_usable}, stated at byte {offset}")
    return sector[:header_size], header


def _gpt_array(source: Source, offset: int, sector_size: int) -> bytes:
    """Return the entries that the header at offset describes."""
    _, header = read_gpt_header(source, offset, sector_size)
    count, size = header["NumberOfPartitionEntries"], header["SizeOfPartitionEntry"]
    if size != GPT_ENTRY.size:
        raise DamagedGptError(f"entries of {size} bytes, stated at byte {offset}; Linux takes {GPT_ENTRY.size}")
    if count > MAX_GPT_ENTRIES:
        raise DamagedGptError(f"{count} entries of {size} bytes, stated at byte {offset}")
    first = header["PartitionEntryLBA"] * sector_size
    if first + count * size > source.size:
        raise DamagedGptError(f"partition entries at byte {first} lie beyond the end of the disk")
    array = read_bytes(source, first, count * size)
    _check_crc(zlib.crc32(array), header["PartitionEntryArrayCRC32"], f"partition entries at byte {first}")
    return array


def _check_crc(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise DamagedGptError(f"{what}: CRC {found:#010x}, expected {expected:#010x}")


def _gpt_partitions(source: Source, array: bytes, sector_size: int) -> Iterator[Partition]:
    for number, entry in gpt_entries(array):
        first, last = entry["StartingLBA"], entry["EndingLBA"]
        if last < first:
            raise PartitionError(f"{source.name}: partition {number} ends (sector {last}) before it starts ({first})")
        type_guid, own_guid = (guid_text(entry[name]) for name in ("PartitionTypeGUID", "UniquePartitionGUID"))
        start, length = first * sector_size, (last - first + 1) * sector_size
        name = entry["PartitionName"].decode("utf-16-le", "replace").partition("\0")[0]
        bootable = bool(entry["Attributes"] & BIOS_BOOTABLE)
        yield _inside(source, Partition(number, start, length, type_guid.upper(), own_guid, name, bootable=bootable))


def _inside(source: Source, partition: Partition) -> Partition:
    if partition.start + partition.length > source.size:
        raise PartitionError(
            f"{source.name}: partition {partition.number} (bytes {partition.start} to "
            f"{partition.start + partition.length}) lies beyond the end of the disk ({source.size})"
        )
    return partition
