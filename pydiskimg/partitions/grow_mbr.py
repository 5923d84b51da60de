# SPDX-License-Identifier: MIT
"""Lengthen the last partition of an MBR, primary or logical: UEFI 2.10, section 5.2, and extended boot records.

A logical partition is described in three sectors. They are written from the outside inwards, so that a partition never
reaches beyond the area that contains it:

    MBR: extended partition ──> record before: where the next record's area ends ──> its own record
"""

from __future__ import annotations

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.growth_plan import NothingToGrowError, PartitionGrowth, Span, aligned_end, refuse_overlaps
from pydiskimg.partitions.layout import EXTENDED, MBR, put_mbr_entry
from pydiskimg.partitions.mbr_entries import MAX_END, MbrEntry, read_chain, read_entries, spans_of
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import Source, read_bytes

# The geometry that every PC reports, and the address that means "beyond the range of CHS".
_HEADS, _SECTORS = 255, 63
_BEYOND_CHS = b"\xfe\xff\xff"


def plan_mbr_growth(source: Source, sector_size: int) -> PartitionGrowth | None:
    """Return how the last partition grows; nothing to write if it reaches the end; None without partitions.

    Raises PartitionError for a table that is damaged or unlike those that partitioners make, NothingToGrowError when
    the last partition is an extended one without logical partitions.
    """
    numbered = read_partition_table(source, sector_size=sector_size)
    entries = read_entries(source, 0, 0, sector_size)
    containers = [entry for entry in entries if entry.kind in EXTENDED]
    if len(containers) > 1:
        raise PartitionError(
            f"{source.name}: has {len(containers)} extended partitions, expected one; nothing was grown"
        )
    chain = read_chain(source, containers[0], sector_size) if containers else []
    refuse_overlaps(source.name, [Span(0, 1, "the partition table"), *spans_of(entries)])
    if containers and containers[0].end * sector_size > source.size:
        raise PartitionError(
            f"{source.name}: the extended partition (to sector {containers[0].end}) reaches beyond the end of the disk "
            f"({source.size // sector_size}); nothing was grown"
        )
    if not numbered:
        if containers:
            raise NothingToGrowError("the only partition of the disk is an empty extended one")
        return None
    last = max(numbered, key=lambda partition: partition.start + partition.length)
    return _growth(source, sector_size, last, entries, chain)


def _growth(
    source: Source, sector_size: int, last: Partition, entries: list[MbrEntry], chain: list[MbrEntry]
) -> PartitionGrowth:
    own = _entry_of(source, last, [*entries, *chain], sector_size)
    container = next((entry for entry in entries if entry.kind in EXTENDED), None)
    if container is not None and container.end > own.end and not own.record:
        raise NothingToGrowError(f"after partition {last.number}, an extended partition reaches further")
    disk_end = source.size // sector_size
    limit = min(disk_end, MAX_END)
    end = aligned_end(limit, sector_size)
    limited_by = "an MBR counts no further" if disk_end > limit else ""
    if end <= own.end:
        return PartitionGrowth(last, last.length, (), limited_by)
    outer = [container] if own.record else []
    outer += [link for link in chain if link.kind in EXTENDED and link.start == own.record]
    writes = [_lengthened(source, entry, end, sector_size) for entry in [*outer, own] if entry and entry.end < end]
    return PartitionGrowth(last, end * sector_size - last.start, tuple(writes), limited_by)


def _entry_of(source: Source, partition: Partition, entries: list[MbrEntry], sector_size: int) -> MbrEntry:
    for entry in entries:
        if entry.kind not in EXTENDED and entry.start * sector_size == partition.start:
            return entry
    raise PartitionError(
        f"{source.name}: partition {partition.number} is in an extended boot record that some systems do not find; "
        "nothing was grown"
    )


def _lengthened(source: Source, entry: MbrEntry, end: int, sector_size: int) -> tuple[int, bytes]:
    """Return the record with the end of the entry changed; every other byte stays."""
    offset = entry.record * sector_size
    record = bytearray(read_bytes(source, offset, MBR.size))
    put_mbr_entry(record, entry.slot, EndingCHS=_chs(end - 1), SizeInLBA=end - entry.start)
    return offset, bytes(record)


def _chs(sector: int) -> bytes:
    """Return the cylinder, head and sector that an MBR states for a sector."""
    cylinder, rest = divmod(sector, _HEADS * _SECTORS)
    if cylinder > 1023:
        return _BEYOND_CHS
    head, number = divmod(rest, _SECTORS)
    return bytes((head, (number + 1) | (cylinder >> 8) << 6, cylinder & 0xFF))
