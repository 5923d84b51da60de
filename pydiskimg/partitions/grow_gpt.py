# SPDX-License-Identifier: MIT
"""Lengthen the last partition of a GPT, and move the backup to the end of the disk: UEFI 2.10, section 5.3.

The header in sector 1 decides which array of entries is valid, and a sector is written whole or not at all. So the
header points to the backup's array while its own array is written:

    sector 0     1        2                                                   end
    | MBR | header | entries |  partitions ...                | entries | header |
                                                                   1        2      the new backup
            3: pointing to 1       4: the entries in place     5: the header pointing to 4
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass, replace

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.growth_plan import NothingToGrowError, PartitionGrowth, Span, aligned_end, refuse_overlaps
from pydiskimg.partitions.layout import (
    GPT_ENTRY,
    GPT_HEADER,
    MBR,
    PROTECTIVE,
    gpt_entries,
    gpt_header_crc,
    mbr_entries,
    put_mbr_entry,
)
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import MAX_GPT_ENTRIES, DamagedGptError, read_gpt_header
from pydiskimg.protocols import Source, read_bytes

_MOST_SECTORS = 0xFFFFFFFF  # that an entry of an MBR can cover


@dataclass(frozen=True, slots=True)
class GptHeader:
    """The fields of a header; all locations are sectors. raw is its bytes (HeaderSize of them) as read."""

    raw: bytes
    own: int
    alternate: int
    first_usable: int
    last_usable: int
    array: int
    count: int
    entry_size: int

    @property
    def is_unfinished(self) -> bool:
        """True after an interrupted run: the header points to the entries of the backup, after all partitions."""
        return self.array > self.last_usable

    def array_sectors(self, sector_size: int) -> int:
        return -(-self.count * self.entry_size // sector_size)

    def packed(self, array: bytes, sector_size: int) -> bytes:
        """Return the sector of the header for the entries in array; fields that are not given stay as read."""
        header = bytearray(self.raw)
        positions = {"MyLBA": self.own, "AlternateLBA": self.alternate, "PartitionEntryLBA": self.array}
        usable = {"FirstUsableLBA": self.first_usable, "LastUsableLBA": self.last_usable}
        GPT_HEADER.put(header, {**positions, **usable, "PartitionEntryArrayCRC32": zlib.crc32(array)})
        GPT_HEADER.put(header, {"HeaderCRC32": gpt_header_crc(header)})
        return bytes(header).ljust(sector_size, b"\0")


def plan_gpt_growth(source: Source, sector_size: int) -> PartitionGrowth:
    """Return how the last partition grows; there is nothing to write if it reaches the end.

    Only the copy at the start of the disk is used, because only it tells where the backup of a smaller disk is. Raises
    PartitionError for a damaged table, NothingToGrowError for one without partitions or with other partitions in its
    MBR.
    """
    protective = protective_mbr(source, sector_size)
    header = read_header(source, sector_size)
    array = read_array(source, header, sector_size)
    partitions = partitions_in(source, header, array, sector_size)
    if not partitions:
        raise NothingToGrowError("the GPT has no partition")
    last = max(partitions, key=lambda partition: partition.start + partition.length)
    limit = source.size // sector_size - 1 - header.array_sectors(sector_size)
    old_end = (last.start + last.length) // sector_size
    end = max(old_end, aligned_end(limit, sector_size))
    if old_end > limit or (end == old_end and not header.is_unfinished):
        return PartitionGrowth(last, last.length, ())
    changed = bytearray(array)
    GPT_ENTRY.put(changed, {"EndingLBA": end - 1}, (last.number - 1) * header.entry_size)
    writes = table_writes(source, sector_size, header, bytes(changed), limit)
    return PartitionGrowth(last, end * sector_size - last.start, (*protective, *writes))


def table_writes(
    source: Source, sector_size: int, header: GptHeader, array: bytes, limit: int
) -> tuple[tuple[int, bytes], ...]:
    """Return the writes that put the entries in array into both copies; the backup's begin at sector limit.

    header is the new header except for the locations of the copies: the backup is at the end of the disk.
    """
    last_sector = source.size // sector_size - 1
    sectors = header.array_sectors(sector_size)
    position = 2 if header.is_unfinished else header.array
    final = replace(header, alternate=last_sector, last_usable=limit - 1, array=position)
    backup = replace(final, own=last_sector, alternate=1, array=limit)
    meanwhile = replace(final, array=limit)
    padded = array.ljust(sectors * sector_size, b"\0")
    return (
        (limit * sector_size, padded),
        (last_sector * sector_size, backup.packed(array, sector_size)),
        (sector_size, meanwhile.packed(array, sector_size)),
        _differing(source, position * sector_size, padded, sector_size),
        (sector_size, final.packed(array, sector_size)),
    )


def _differing(source: Source, offset: int, contents: bytes, sector_size: int) -> tuple[int, bytes]:
    """Return the sectors of contents from the first to the last that differs from the disk, at least one."""
    old = read_bytes(source, offset, len(contents))
    positions = range(0, len(contents), sector_size)
    changed = [at for at in positions if old[at : at + sector_size] != contents[at : at + sector_size]] or [0]
    return offset + changed[0], contents[changed[0] : changed[-1] + sector_size]


def protective_mbr(source: Source, sector_size: int, *, is_cut: bool = False) -> tuple[tuple[int, bytes], ...]:
    """Return the write that makes the MBR cover the whole disk, or none if it does.

    is_cut: the MBR is that of a larger disk, and must not reach beyond the end of this one.
    """
    sector = bytearray(read_bytes(source, 0, MBR.size))
    used = [(slot, entry) for slot, entry in enumerate(mbr_entries(sector)) if entry["OSType"]]
    if [entry["OSType"] for _, entry in used] != [PROTECTIVE]:
        raise NothingToGrowError(
            "the MBR has partitions besides those of the GPT (a hybrid MBR), "
            "and systems differ in which of the two they use"
        )
    slot, entry = used[0]
    covered = min(source.size // sector_size - 1, _MOST_SECTORS)
    # Some partitioners always write the largest number.
    if entry["SizeInLBA"] in (covered, _MOST_SECTORS) or (entry["SizeInLBA"] > covered and not is_cut):
        return ()
    put_mbr_entry(sector, slot, EndingCHS=b"\xff" * 3, SizeInLBA=covered)
    return ((0, bytes(sector)),)


def read_header(source: Source, sector_size: int) -> GptHeader:
    """Return the header at the start of the disk. Raises PartitionError when it is damaged."""
    try:
        raw, fields = read_gpt_header(source, sector_size, sector_size)
    except DamagedGptError as error:
        raise damaged(source, str(error)) from error
    header = GptHeader(
        raw=raw,
        own=fields["MyLBA"],
        alternate=fields["AlternateLBA"],
        first_usable=fields["FirstUsableLBA"],
        last_usable=fields["LastUsableLBA"],
        array=fields["PartitionEntryLBA"],
        count=fields["NumberOfPartitionEntries"],
        entry_size=fields["SizeOfPartitionEntry"],
    )
    _check_positions(source, header, sector_size)
    return header


def read_array(source: Source, header: GptHeader, sector_size: int) -> bytes:
    """Return the entries that the header describes. Raises PartitionError when they are damaged."""
    array = read_bytes(source, header.array * sector_size, header.count * header.entry_size)
    if zlib.crc32(array) != GPT_HEADER.unpack(header.raw)["PartitionEntryArrayCRC32"]:
        raise damaged(source, f"the CRC of its entries at sector {header.array} is wrong")
    return array


def _check_positions(source: Source, header: GptHeader, sector_size: int) -> None:
    size, count = header.entry_size, header.count
    if size > GPT_ENTRY.size and not size & (size - 1):
        raise NothingToGrowError(f"Linux ignores the GPT: its entries have {size} bytes, expected {GPT_ENTRY.size}")
    if not (1 <= count <= MAX_GPT_ENTRIES and size == GPT_ENTRY.size):
        raise damaged(source, f"{count} entries of {size} bytes")
    sectors = header.array_sectors(sector_size)
    last_sector = source.size // sector_size - 1
    in_front = 2 <= header.array <= header.first_usable - sectors
    # Of a growing disk the backup is at its end, of one that is about to be cut where it will end.
    at_the_end = header.array in (last_sector - sectors, min(header.alternate, last_sector) - sectors)
    unfinished = at_the_end and header.is_unfinished and 2 + sectors <= header.first_usable
    if header.last_usable >= last_sector:
        raise damaged(source, f"usable sectors {header.first_usable} to {header.last_usable} of {last_sector + 1}")
    if not (in_front or unfinished):
        raise damaged(source, f"entries at sector {header.array}, usable sectors from {header.first_usable}")


def partitions_in(source: Source, header: GptHeader, array: bytes | bytearray, sector_size: int) -> list[Partition]:
    """Return the partitions after checking that each is inside the usable sectors and that none overlap."""
    found, spans = [], []
    for number, entry in gpt_entries(array):
        first, last = entry["StartingLBA"], entry["EndingLBA"]
        if not header.first_usable <= first <= last <= header.last_usable:
            raise damaged(
                source,
                f"partition {number} (sectors {first} to {last}) lies outside of the usable ones "
                f"({header.first_usable} to {header.last_usable})",
            )
        spans.append(Span(first, last + 1, f"partition {number}"))
        kind = str(uuid.UUID(bytes_le=entry["PartitionTypeGUID"])).upper()
        found.append(Partition(number, first * sector_size, (last - first + 1) * sector_size, kind))
    refuse_overlaps(source.name, spans)
    return found


def damaged(source: Source, what: str) -> PartitionError:
    """Return the error for a damaged table; what is the reason."""
    return PartitionError(f"{source.name}: the GPT is damaged ({what}); nothing was written, repair it first")
