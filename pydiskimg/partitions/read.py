# SPDX-License-Identifier: MIT
"""The partition table of a disk that a guest may have written: MBR with logical partitions, and GPT.

Read here rather than by libparted, because the bytes are hostile and may lie on any Source. MBR: as in UEFI 2.10,
section 5.2 and the extended boot records every PC system writes; GPT: UEFI 2.10, section 5.3.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pydiskimg.errors import PartitionError
from pydiskimg.protocols import Source, read_bytes

# MBR and extended boot record. Little-endian.
MBR_DISK_SIGNATURE = slice(440, 444)
MBR_ENTRIES_OFFSET = 446
MBR_ENTRY = struct.Struct(
    "<B"  #  0  BootIndicator  0x80: bootable
    "3s"  #  1  StartingCHS
    "B"  #   4  OSType
    "3s"  #  5  EndingCHS
    "I"  #   8  StartingLBA    sectors; in an extended boot record relative to it
    "I"  #  12  SizeInLBA      sectors
)
assert MBR_ENTRY.size == 16
MBR_SIGNATURE = b"\x55\xaa"  # at byte 510

# GPT header, in sector 1 or, as a backup, in the last sector. Little-endian.
GPT_HEADER = struct.Struct(
    "<8s"  #  0  Signature                 b"EFI PART"
    "I"  #    8  Revision
    "I"  #   12  HeaderSize                92 to one sector
    "I"  #   16  HeaderCRC32               over HeaderSize bytes, itself taken as zero
    "I"  #   20  Reserved
    "Q"  #   24  MyLBA
    "Q"  #   32  AlternateLBA
    "Q"  #   40  FirstUsableLBA
    "Q"  #   48  LastUsableLBA
    "16s"  # 56  DiskGUID
    "Q"  #   72  PartitionEntryLBA
    "I"  #   80  NumberOfPartitionEntries
    "I"  #   84  SizeOfPartitionEntry      128 * 2**n
    "I"  #   88  PartitionEntryArrayCRC32
)
assert GPT_HEADER.size == 92
GPT_ENTRY = struct.Struct(
    "<16s"  #  0  PartitionTypeGUID    zero: unused
    "16s"  #  16  UniquePartitionGUID
    "Q"  #    32  StartingLBA
    "Q"  #    40  EndingLBA            inclusive
    "Q"  #    48  Attributes
    "72s"  #  56  PartitionName        UTF-16LE
)
assert GPT_ENTRY.size == 128
GPT_SIGNATURE = b"EFI PART"

# A GPT lies in the second sector, so that its place tells for which of these sizes of sectors it was made.
SECTOR_SIZES = (512, 1024, 2048, 4096)

PROTECTIVE = 0xEE
EXTENDED = frozenset({0x05, 0x0F, 0x85})
# The kernel's own bounds are 256 and 128; a table beyond them is nobody's.
MAX_LOGICAL = 256
MAX_GPT_ENTRIES = 1024

MbrEntry = tuple[int, bytes, int, bytes, int, int]
"""The fields of MBR_ENTRY."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition that was found: start and length are bytes and lie inside the disk.

    number is the kernel's (1 to 4 primary, from 5 logical; GPT: the entry). type is the MBR's byte as 0x83 or the
    GPT's GUID in capitals. uuid is the kernel's PARTUUID: the GPT's own GUID of the partition, or the MBR's disk
    signature and the number; empty where there is no table. name is the GPT's name of the partition, arbitrary text.
    """

    number: int
    start: int
    length: int
    type: str
    uuid: str = field(default="", compare=False)
    name: str = field(default="", compare=False)


def read_partition_table(source: Source, *, sector_size: int = 512, backup: bool = True) -> list[Partition]:
    """Return the partitions in the order of their numbers; an empty list where there is no partition table.

    Extended partitions themselves are left out: their logical ones are listed. A partition that lies wholly or in
    part beyond the end of the disk raises PartitionError, as do a chain of extended boot records that is circular, a
    GPT whose two copies are both damaged, one that Linux ignores, and one for sectors of another size. Where the first
    copy is damaged, backup says whether the second is read, which Linux does not. At most 8 MiB are read.
    """
    if source.size < 2 * sector_size:
        return []
    sector = read_bytes(source, 0, 512)
    if sector[510:512] != MBR_SIGNATURE:
        return []
    entries = mbr_entries(sector)
    if any(entry[2] == PROTECTIVE for entry in entries):
        problem = protective_problem(entries)
        if problem is not None:
            raise PartitionError(f"{source.name}: {problem}")
        return _read_gpt(source, sector_size, backup=backup)
    # A file system's boot sector has the signature too; its "entries" hold text or code.
    if any(entry[0] not in (0, 0x80) for entry in entries):
        return []
    signature = int.from_bytes(sector[MBR_DISK_SIGNATURE], "little")
    found = _read_mbr(source, entries, sector_size)
    return [replace(partition, uuid=f"{signature:08x}-{partition.number:02x}") for partition in found]


def mbr_entries(sector: bytes | bytearray) -> list[MbrEntry]:
    """Return the four entries of an MBR or extended boot record."""
    return [MBR_ENTRY.unpack_from(sector, MBR_ENTRIES_OFFSET + MBR_ENTRY.size * slot) for slot in range(4)]


def protective_problem(entries: Sequence[MbrEntry]) -> str | None:
    """Return a clause: why Linux ignores the GPT that the entries of an MBR announce; None where it does not.

    Linux wants an entry of type 0xEE that starts at sector 1, whatever the others are (block/partitions/efi.c).
    """
    starts = [start for _, _, kind, _, start, _ in entries if kind == PROTECTIVE]
    if 1 in starts:
        return None
    return f"Linux ignores the GPT: its protective MBR entry starts at sector {starts[0]}, expected 1"


def gpt_sector_size(source: Source) -> int | None:
    """Return the size of sectors (bytes) for which source has a GPT, intact or not; None where there is none."""
    for size in SECTOR_SIZES:
        if source.size >= 2 * size and read_bytes(source, size, len(GPT_SIGNATURE)) == GPT_SIGNATURE:
            return size
    return None


def other_sectors(what: str, table: int, disk: int) -> str:
    """Say that a partition table was made for sectors of another size than the disk has (both bytes)."""
    return f"{what} for sectors of {table} bytes, while the disk has sectors of {disk}"


def refuse_hybrid(source: Source, partitions: Sequence[Partition], *, sector_size: int = 512) -> None:
    """Raise PartitionError when the MBR of source has a partition that is not among those of its GPT.

    Firmware and other systems than Linux go by the MBR then. partitions are those that read_partition_table() found.
    """
    entries = mbr_entries(read_bytes(source, 0, 512)) if partitions else []
    if all(kind != PROTECTIVE for _, _, kind, *_ in entries):
        return
    known = {(partition.start, partition.length) for partition in partitions}
    for slot, (_, _, kind, _, start, length) in enumerate(entries, start=1):
        if kind not in (0, PROTECTIVE) and (start * sector_size, length * sector_size) not in known:
            raise PartitionError(
                f"{source.name}: entry {slot} of the MBR (type {kind:#04x}, sectors {start} to {start + length}) is "
                "not a partition of the GPT as well, so which table counts depends on who reads it"
            )


def _read_mbr(source: Source, entries: Sequence[MbrEntry], sector_size: int) -> Iterator[Partition]:
    extended = None
    for number, (_, _, kind, _, start, length) in enumerate(entries, start=1):
        if kind in EXTENDED and length:
            extended = extended or start
        elif kind and length:
            yield _inside(source, Partition(number, start * sector_size, length * sector_size, f"{kind:#04x}"))
    if extended:
        yield from _read_logical(source, extended, sector_size)


def _read_logical(source: Source, extended: int, sector_size: int) -> Iterator[Partition]:
    """Follow the chain of extended boot records: each holds one logical partition and the place of the next."""
    record = extended
    number = 5
    seen = set()
    while record not in seen and number < 5 + MAX_LOGICAL:
        seen.add(record)
        offset = record * sector_size
        if offset + 512 > source.size:
            raise PartitionError(
                f"{source.name}: extended boot record at byte {offset} lies beyond the end of the disk ({source.size})"
            )
        sector = read_bytes(source, offset, 512)
        if sector[510:512] != MBR_SIGNATURE:
            raise PartitionError(
                f"{source.name}: extended boot record at byte {offset} has no signature (found "
                f"{sector[510:512].hex()}, expected 55aa)"
            )
        logical, following = mbr_entries(sector)[:2]
        if logical[2] and logical[5]:
            start = (record + logical[4]) * sector_size
            yield _inside(source, Partition(number, start, logical[5] * sector_size, f"{logical[2]:#04x}"))
            number += 1
        if following[2] not in EXTENDED or not following[4]:
            return
        record = extended + following[4]
    raise PartitionError(
        f"{source.name}: the chain of extended boot records is circular or longer than {MAX_LOGICAL} "
        f"(at byte {record * sector_size})"
    )


def _read_gpt(source: Source, sector_size: int, *, backup: bool) -> list[Partition]:
    problems = []
    for offset in (sector_size, source.size // sector_size * sector_size - sector_size)[: 1 + backup]:
        try:
            return list(_read_gpt_copy(source, offset, sector_size))
        except _DamagedError as error:
            problems.append(str(error))
    other = gpt_sector_size(source)
    if other is not None and other != sector_size:
        raise PartitionError(f"{source.name}: has {other_sectors('a GPT', other, sector_size)}")
    which = "both copies of the GPT are" if backup else "the GPT, whose backup Linux does not read, is"
    raise PartitionError(f"{source.name}: {which} damaged: {'; '.join(problems)}")


class _DamagedError(Exception):
    """This copy cannot be believed; the other one may."""


def _read_gpt_copy(source: Source, offset: int, sector_size: int) -> Iterator[Partition]:
    first, count, size = _gpt_header(source, offset, sector_size)
    array = read_bytes(source, first, count * size)
    _check_crc(array, _gpt_array_crc(source, offset), f"partition entries at byte {first}")
    return _gpt_partitions(source, array, size, sector_size)


def _gpt_header(source: Source, offset: int, sector_size: int) -> tuple[int, int, int]:
    """Return the checked place of the partition entries: first byte, number of entries, size of each.

    What Linux checks is checked, so that a GPT is not read here that Linux ignores (block/partitions/efi.c).
    """
    sector = read_bytes(source, offset, sector_size)
    header = GPT_HEADER.unpack_from(sector)
    signature, header_size, crc = header[0], header[2], header[3]
    if signature != GPT_SIGNATURE:
        raise _DamagedError(f"no GPT header at byte {offset}")
    if not GPT_HEADER.size <= header_size <= sector_size:
        raise _DamagedError(f"header size {header_size} at byte {offset}")
    _check_crc(sector[:16] + bytes(4) + sector[20:header_size], crc, f"header at byte {offset}")
    own, first_usable, last_usable = header[5], header[7], header[8]
    if own != offset // sector_size:
        raise _DamagedError(f"header of sector {own}, found in sector {offset // sector_size}")
    if not first_usable <= last_usable < source.size // sector_size:
        raise _DamagedError(f"usable sectors {first_usable} to {last_usable}, stated at byte {offset}")
    first, count, size = header[10] * sector_size, header[11], header[12]
    if size != GPT_ENTRY.size:
        raise _DamagedError(f"entries of {size} bytes, stated at byte {offset}; Linux takes {GPT_ENTRY.size}")
    if count > MAX_GPT_ENTRIES:
        raise _DamagedError(f"{count} entries of {size} bytes, stated at byte {offset}")
    if first + count * size > source.size:
        raise _DamagedError(f"partition entries at byte {first} lie beyond the end of the disk")
    return first, count, size


def _gpt_array_crc(source: Source, offset: int) -> int:
    return int(GPT_HEADER.unpack(read_bytes(source, offset, GPT_HEADER.size))[13])


def _check_crc(data: bytes, expected: int, what: str) -> None:
    found = zlib.crc32(data)
    if found != expected:
        raise _DamagedError(f"{what}: CRC {found:#010x}, expected {expected:#010x}")


def _gpt_partitions(source: Source, array: bytes, size: int, sector_size: int) -> Iterator[Partition]:
    for index in range(len(array) // size):
        kind, guid, first, last, _, label = GPT_ENTRY.unpack_from(array, index * size)
        if not any(kind):
            continue
        if last < first:
            raise PartitionError(
                f"{source.name}: partition {index + 1} ends (sector {last}) before it starts ({first})"
            )
        type_guid, own_guid = (str(uuid.UUID(bytes_le=raw)) for raw in (kind, guid))
        start, length = first * sector_size, (last - first + 1) * sector_size
        name = label.decode("utf-16-le", "replace").partition("\0")[0]
        yield _inside(source, Partition(index + 1, start, length, type_guid.upper(), own_guid, name))


def _inside(source: Source, partition: Partition) -> Partition:
    if partition.start + partition.length > source.size:
        raise PartitionError(
            f"{source.name}: partition {partition.number} (bytes {partition.start} to "
            f"{partition.start + partition.length}) lies beyond the end of the disk ({source.size})"
        )
    return partition
