# SPDX-License-Identifier: MIT
"""The entries of an MBR and of its chain of extended boot records, checked against what partitioners write."""

from __future__ import annotations

from dataclasses import dataclass

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.growth_plan import Span, refuse_overlaps
from pydiskimg.partitions.layout import EXTENDED, MBR, is_partitioned, mbr_entries
from pydiskimg.partitions.partition import Partition, has_mbr
from pydiskimg.partitions.read import MAX_LOGICAL, extended_record, read_partition_table
from pydiskimg.protocols import Source, read_bytes

# Some readers count start, length and the first sector after a partition in 32 bits.
MAX_END = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class MbrEntry:
    """An entry that is in use: slot 0 to 3 of the record in a sector; start and end are sectors of the disk."""

    record: int
    slot: int
    kind: int
    start: int
    end: int


def with_extended(source: Source, sector_size: int) -> list[Partition]:
    """Return the partitions of an MBR or GPT in the order of their numbers, including the extended one of an MBR.

    Raises as read_partition_table() does.
    """
    found = [*read_partition_table(source, sector_size=sector_size), *_extended(source, sector_size)]
    return sorted(found, key=lambda part: part.number)


def _extended(source: Source, sector_size: int) -> list[Partition]:
    sector = read_bytes(source, 0, MBR.size) if source.size >= MBR.size else b""
    if not has_mbr(sector) or not is_partitioned(mbr_entries(sector)):
        return []
    found = []
    for entry in read_entries(source, 0, 0, sector_size):
        if entry.kind in EXTENDED:
            start, end = entry.start * sector_size, entry.end * sector_size
            found.append(Partition(entry.slot + 1, start, end - start, f"{entry.kind:#04x}"))
    return found


def read_entries(source: Source, record: int, extended: int, sector_size: int) -> list[MbrEntry]:
    """Return a record's used entries (0: the MBR): data counts from the record, links from the extended partition."""
    found = []
    sector = extended_record(source, record, sector_size) if record else read_bytes(source, 0, MBR.size)
    for slot, entry in enumerate(mbr_entries(sector)):
        kind, length = entry["OSType"], entry["SizeInLBA"]
        if kind and length:
            start = entry["StartingLBA"] + (extended if kind in EXTENDED else record)
            found.append(MbrEntry(record, slot, kind, start, start + length))
    return found


def read_chain(source: Source, container: MbrEntry, sector_size: int) -> list[MbrEntry]:
    """Return the entries of every logical record. Raises PartitionError for a chain that partitioners do not write."""
    chain: list[MbrEntry] = []
    areas = []
    seen: set[int] = set()
    record = container.start
    while True:
        if record in seen or len(seen) > MAX_LOGICAL:
            raise PartitionError(
                f"{source.name}: the chain of extended boot records is circular or longer than {MAX_LOGICAL} "
                f"(at byte {record * sector_size}); nothing was changed"
            )
        seen.add(record)
        entries = read_entries(source, record, container.start, sector_size)
        links = [entry for entry in entries if entry.kind in EXTENDED]
        logical = [entry for entry in entries if entry.kind not in EXTENDED]
        if any(entry.slot != 0 for entry in logical) or any(entry.slot != 1 for entry in links):
            raise PartitionError(
                f"{source.name}: the extended boot record at byte {record * sector_size} is not one that "
                "partitioners write; nothing was changed"
            )
        areas += [Span(record, record + 1, f"the extended boot record in sector {record}"), *spans_of(logical)]
        chain += entries
        if not links:
            break
        record = links[0].start
    refuse_overlaps(source.name, areas)
    outside = next((area for area in areas if not container.start <= area.start < area.end <= container.end), None)
    if outside is not None:
        raise PartitionError(
            f"{source.name}: {outside.what} (sectors {outside.start} to {outside.end}) lies outside of its extended "
            f"partition (sectors {container.start} to {container.end}); nothing was changed"
        )
    return chain


def spans_of(entries: list[MbrEntry]) -> list[Span]:
    return [
        Span(entry.start, entry.end, f"the partition of type {entry.kind:#04x} at sector {entry.start}")
        for entry in entries
    ]
