# SPDX-License-Identifier: MIT
"""Add an entry to a GPT, for a small partition in a gap between the others (ADR 0107).

Images begin their first partition at 1 MiB, for alignment; a GPT of 128 entries ends at 17 KiB. No boot loader on a GPT
disk uses the space between: GRUB's core image is in a BIOS boot partition. A gap with any byte that is not zero is not
used.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydiskimg.errors import DiskImageError
from pydiskimg.partitions.grow_gpt import (
    GptHeader,
    partitions_in,
    protective_mbr,
    read_array,
    read_header,
    table_writes,
)
from pydiskimg.partitions.growth_plan import NothingToGrowError
from pydiskimg.partitions.layout import GPT_ENTRY, MBR, has_protective, mbr_entries
from pydiskimg.partitions.partition import Partition, has_mbr
from pydiskimg.partitions.read import gpt_sector_size, other_sectors, protective_problem
from pydiskimg.protocols import Disk, Source, read_bytes
from pydiskimg.text import quoted

_ALIGNMENT = 4096  # bytes: the physical sector size of today's disks
_NAME_LENGTH = 36  # UTF-16 units


class NoGapError(DiskImageError):
    """The disk has no room for one more partition; the text is the reason, without the disk's name."""


@dataclass(frozen=True, slots=True)
class GapPartition:
    """A new partition, and the writes that add it.

    writes are (byte offset, contents) in the order in which they must become durable: an interruption leaves a valid
    table, the old or the new one. The caller writes the partition's contents first.
    """

    partition: Partition
    writes: tuple[tuple[int, bytes], ...]

    def write(self, disk: Disk) -> None:
        """Make the changes, each durable before the next. Raises StorageError."""
        for offset, contents in self.writes:
            disk.write(offset, contents)
            disk.flush()


def plan_gap_partition(
    source: Source,
    sector_size: int,
    *,
    type_guid: uuid.UUID,
    identifier: uuid.UUID,
    name: str,
    smallest: int,
    largest: int,
) -> GapPartition:
    """Return a partition of smallest to largest bytes in the first gap before the last partition that has only zeros.

    It gets the lowest free number; the other partitions keep their locations, numbers and attributes. If the table was
    made for a smaller disk, its backup moves to the end of this one. Nothing is written. Raises NoGapError if there is
    no GPT, no free entry or no such gap, PartitionError for a damaged table.
    """
    _require_gpt(source, sector_size)
    header = read_header(source, sector_size)
    array = bytearray(read_array(source, header, sector_size))
    partitions = partitions_in(source, header, array, sector_size)
    sectors = header.array_sectors(sector_size)
    limit = source.size // sector_size - 1 - sectors
    if any((partition.start + partition.length) // sector_size > limit for partition in partitions):
        raise NoGapError("the last partition leaves no room for the backup of the table")
    number = next((slot for slot in range(1, header.count + 1) if slot not in {part.number for part in partitions}), 0)
    if not number:
        raise NoGapError(f"all {header.count} entries of the GPT are in use")
    first = (2 if header.is_unfinished else header.array) + sectors
    gap = _first_gap(
        source, first * sector_size, partitions, smallest=smallest, largest=largest // _ALIGNMENT * _ALIGNMENT
    )
    if gap is None:
        raise NoGapError(f"the GPT has no gap of {smallest} bytes, all of them zero, before its last partition")
    made = Partition(number, gap[0], gap[1] - gap[0], str(type_guid).upper(), str(identifier), name)
    _put(array, header, made, type_guid, identifier, sector_size)
    header = replace(header, first_usable=min(header.first_usable, first))
    mbr = protective_mbr(source, sector_size)
    return GapPartition(made, (*mbr, *table_writes(source, sector_size, header, bytes(array), limit)))


def _require_gpt(source: Source, sector_size: int) -> None:
    if source.size < 2 * sector_size:
        raise NoGapError("the disk is too small for a partition table")
    sector = read_bytes(source, 0, MBR.size)
    entries = mbr_entries(sector)
    if not (has_mbr(sector) and has_protective(entries)):
        raise NoGapError("the disk has no GPT")
    problem = protective_problem(entries)
    if problem is not None:
        raise NoGapError(problem)
    found = gpt_sector_size(source)
    if found is not None and found != sector_size:
        raise NoGapError(f"found {other_sectors('a GPT', found, sector_size)}")
    try:
        protective_mbr(source, sector_size)
    except NothingToGrowError as error:
        raise NoGapError(str(error)) from None


def _first_gap(
    source: Source, begin: int, partitions: list[Partition], *, smallest: int, largest: int
) -> tuple[int, int] | None:
    """Return the start and end (bytes) of the first gap that has only zeros."""
    for after, before in _gaps(begin, partitions):
        start = -(-after // _ALIGNMENT) * _ALIGNMENT
        end = min(before // _ALIGNMENT * _ALIGNMENT, start + largest)
        if end - start >= smallest and not any(read_bytes(source, start, end - start)):
            return start, end
    return None


def _gaps(begin: int, partitions: list[Partition]) -> Iterator[tuple[int, int]]:
    for partition in sorted(partitions, key=lambda partition: partition.start):
        yield begin, partition.start
        begin = partition.start + partition.length


def _put(
    array: bytearray, header: GptHeader, made: Partition, type_guid: uuid.UUID, identifier: uuid.UUID, sector_size: int
) -> None:
    first, end = made.start // sector_size, (made.start + made.length) // sector_size
    name = made.name.encode("utf-16-le")
    if len(name) > 2 * _NAME_LENGTH:
        raise ValueError(f"{quoted(made.name)} is longer than {_NAME_LENGTH} characters")
    entry = GPT_ENTRY.pack(
        PartitionTypeGUID=type_guid.bytes_le,
        UniquePartitionGUID=identifier.bytes_le,
        StartingLBA=first,
        EndingLBA=end - 1,
        PartitionName=name,
    )
    at = (made.number - 1) * header.entry_size
    array[at : at + len(entry)] = entry
