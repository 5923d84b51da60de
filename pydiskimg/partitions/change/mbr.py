# SPDX-License-Identifier: MIT
"""Change an MBR with its logical partitions (UEFI 2.10, section 5.2, and extended boot records).

    MBR: 4 entries ──> extended partition: record 5 ──> record 6 ──> ...   each the one before its partition's data
                                             │             │
                                             5             6

A record is 1 MiB before the partition that it describes. A new record is written before the link to it; every other
change is one sector.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.change.free import FreeSpace
from pydiskimg.partitions.change.table import ChangedTable, PartitionChange, in_sectors, no_partition
from pydiskimg.partitions.growth_plan import ALIGNMENT, Span
from pydiskimg.partitions.layout import BOOTABLE, EXTENDED, MBR, MBR_SLOTS, mbr_entries, put_mbr_entry
from pydiskimg.partitions.mbr_entries import MAX_END, read_chain, read_entries, spans_of, with_extended
from pydiskimg.partitions.partition import MBR_SIGNATURE, Partition
from pydiskimg.partitions.read import MAX_LOGICAL
from pydiskimg.partitions.types import type_named
from pydiskimg.protocols import Disk, read_bytes

_BEYOND_CHS = b"\xfe\xff\xff"  # a location that CHS cannot express
_LINK = 0x05
_FIRST_LOGICAL = MBR_SLOTS + 1
_UNUSED: dict[str, int | bytes] = {
    "BootIndicator": 0,
    "StartingCHS": bytes(3),
    "OSType": 0,
    "EndingCHS": bytes(3),
    "StartingLBA": 0,
    "SizeInLBA": 0,
}


@dataclass(frozen=True, slots=True)
class _Record:
    """An extended boot record in a sector; the logical partition's first sector and the one after its last, if any."""

    sector: int
    start: int = 0
    end: int = 0


class ChangedMbr(ChangedTable):
    """The MBR of a disk, read and written with sectors of sector_size bytes; see ChangedTable."""

    label = "dos"

    def __init__(self, disk: Disk, sector_size: int) -> None:
        """Raises PartitionError for a table that is damaged, or unlike those that partitioners make."""
        self.disk = disk
        self.sector_size = sector_size
        self._end = min(disk.size // sector_size, MAX_END)
        self._read()

    @property
    def partitions(self) -> list[Partition]:
        return with_extended(self.disk, self.sector_size)

    def add(
        self, start: int | None, length: int | None, change: PartitionChange, *, number: int | None, logical: bool
    ) -> int:
        _refuse_gpt_fields(self.disk, change)
        kind = int(type_named(change.type or "linux", "dos"), 16)
        first, size = in_sectors(self, start, "start"), in_sectors(self, length, "size")
        if logical:
            if number is not None or kind in EXTENDED:
                raise PartitionError(
                    f"{self.disk.name}: a logical partition takes the next number and cannot be extended"
                )
            return self._add_logical(first, size, kind, bootable=bool(change.bootable))
        return self._add_primary(first, size, kind, number, bootable=bool(change.bootable))

    def delete(self, *numbers: int) -> None:
        primary = sorted(number for number in set(numbers) if number < _FIRST_LOGICAL)
        logical = sorted(set(numbers).difference(primary))
        entries = {number: self._primary(number) for number in primary}
        for number in logical:
            self._record_of(number)
        extended = next((number for number, entry in entries.items() if entry["OSType"] in EXTENDED), None)
        if extended is None:
            for number in reversed(logical):  # those after it get other numbers
                self._delete_logical(number)
        elif len(logical) < len(self._logical()):
            raise PartitionError(
                f"{self.disk.name}: partition {extended} is extended and has logical partitions; delete these, too"
            )
        if primary:
            self._change_sector(0, {number - 1: _UNUSED for number in primary})

    def set(self, number: int, change: PartitionChange) -> None:
        _refuse_gpt_fields(self.disk, change)
        sector, slot = 0, number - 1
        if number >= _FIRST_LOGICAL:
            sector, slot = self._record_of(number).sector, 0
        else:
            entry = self._primary(number)
            if change.type is not None and entry["OSType"] in EXTENDED:
                raise PartitionError(f"{self.disk.name}: partition {number} is extended; its type cannot be changed")
        fields: dict[str, int | bytes] = {}
        if change.type is not None:
            fields["OSType"] = int(type_named(change.type, "dos"), 16)
            if fields["OSType"] in EXTENDED:
                raise PartitionError(
                    f"{self.disk.name}: a partition cannot be changed into an extended one; add an extended partition"
                )
        if change.bootable is not None:
            fields["BootIndicator"] = BOOTABLE if change.bootable else 0
        others = self._not_bootable() if change.bootable and sector == 0 else {}
        self._change_sector(sector, {**others, slot: fields})

    def set_length(self, number: int, length: int) -> None:
        sectors = in_sectors(self, length, "size")
        sector, slot = (self._record_of(number).sector, 0) if number >= _FIRST_LOGICAL else (0, number - 1)
        entry = self._primary(number) if sector == 0 else mbr_entries(self._sector(sector))[0]
        if entry["OSType"] in EXTENDED or sectors is None or sectors > entry["SizeInLBA"]:
            raise PartitionError(
                f"{self.disk.name}: partition {number} is extended, or has no more than {length} bytes"
            )
        self._change_sector(sector, {slot: {"EndingCHS": _BEYOND_CHS, "SizeInLBA": sectors}})
        before = next((one for one, record in pairwise(self._records) if record.sector == sector), None)
        if before is not None:  # its link has the length of this partition, too
            self._link(before, sector, self._record_of(number).end)

    @property
    def end_of_disk(self) -> int:
        ends = [span.end for span in [*self._spans, *self._logical_spans()]]
        if self._container is not None:  # moved_to() shortens it
            ends.remove(self._container.end)
        return max(ends) * self.sector_size

    def moved_to(self, end: int) -> None:
        if self.end_of_disk > end:
            raise PartitionError(f"{self.disk.name}: its partitions need {self.end_of_disk} bytes, more than {end}")
        sectors = end // self.sector_size
        if self._container is not None and self._container.end > sectors:
            slot = next(slot for slot, entry in enumerate(self._slots()) if entry["OSType"] in EXTENDED)
            length = sectors - self._container.start
            self._change_sector(0, {slot: {"EndingCHS": _BEYOND_CHS, "SizeInLBA": length}})

    def _read(self) -> None:
        """Read and check the whole table."""
        entries = read_entries(self.disk, 0, 0, self.sector_size)
        containers = [entry for entry in entries if entry.kind in EXTENDED]
        if len(containers) > 1:
            raise PartitionError(f"{self.disk.name}: has {len(containers)} extended partitions, expected one")
        self._spans = [Span(0, 1, "the partition table"), *spans_of(entries)]
        self._container = containers[0] if containers else None
        self._records: list[_Record] = []
        for entry in read_chain(self.disk, self._container, self.sector_size) if self._container else []:
            if not self._records or self._records[-1].sector != entry.record:
                self._records.append(_Record(entry.record))
            if entry.kind not in EXTENDED:
                self._records[-1] = _Record(entry.record, entry.start, entry.end)
        if self._container is not None and not self._records:
            self._records.append(_Record(self._container.start))

    def _slots(self) -> list[dict[str, Any]]:
        return mbr_entries(self._sector(0))

    def _sector(self, sector: int) -> bytes:
        return read_bytes(self.disk, sector * self.sector_size, MBR.size)

    def _logical(self) -> list[_Record]:
        return [record for record in self._records if record.end]

    def _primary(self, number: int) -> dict[str, Any]:
        entry = self._slots()[number - 1] if 1 <= number <= MBR_SLOTS else {"OSType": 0}
        if not entry["OSType"]:
            raise no_partition(self, number)
        return entry

    def _record_of(self, number: int) -> _Record:
        logical = self._logical()
        if number - _FIRST_LOGICAL >= len(logical):
            raise no_partition(self, number)
        return logical[number - _FIRST_LOGICAL]

    def _add_primary(
        self, start: int | None, length: int | None, kind: int, number: int | None, *, bootable: bool
    ) -> int:
        used = {slot + 1 for slot, entry in enumerate(self._slots()) if entry["OSType"]}
        unused = [each for each in range(1, MBR_SLOTS + 1) if each not in used]
        if kind in EXTENDED and self._container is not None:
            raise PartitionError(f"{self.disk.name}: already has an extended partition")
        if not unused:
            hint = "; add a logical one (--logical)" if self._container is not None else ""
            raise PartitionError(f"{self.disk.name}: all {MBR_SLOTS} entries of the MBR are taken{hint}")
        number = unused[0] if number is None else number
        if number not in unused:
            taken = "is taken" if number in used else f"is not one of 1 to {MBR_SLOTS}"
            raise PartitionError(f"{self.disk.name}: the number {number} {taken}")
        first, end = self._free(1, self._end, self._spans).choose(start, length)
        if kind in EXTENDED:  # an empty record ends the chain
            self._write_record(first, {}, {})
        others = self._not_bootable() if bootable else {}
        self._change_sector(0, {**others, number - 1: _entry(kind, first, end, bootable=bootable)})
        return number

    def _not_bootable(self) -> dict[int, dict[str, int | bytes]]:
        """Return the changes that leave no primary partition bootable: boot code refuses a table with two of them."""
        slots = enumerate(self._slots())
        return {slot: {"BootIndicator": 0} for slot, entry in slots if entry["BootIndicator"] == BOOTABLE}

    def _add_logical(self, start: int | None, length: int | None, kind: int, *, bootable: bool) -> int:
        if self._container is None:
            raise PartitionError(
                f"{self.disk.name}: has no extended partition for a logical one; add one first: --type extended"
            )
        if len(self._records) >= MAX_LOGICAL:
            raise PartitionError(
                f"{self.disk.name}: already has {len(self._records)} logical partitions, the most that are read"
            )
        first, end = self._logical_area(start, length)
        if not self._logical() and len(self._records) == 1:  # the record of an empty chain
            sector = self._records[0].sector
            self._change_sector(sector, {0: _entry(kind, first - sector, end - sector, bootable=bootable)})
        else:
            sector = first - min(self._align, first - self._gap_before(first))
            self._write_record(sector, _entry(kind, first - sector, end - sector, bootable=bootable), {})
            self._link(self._records[-1], sector, end)
        return MBR_SLOTS + len(self._logical())

    def _logical_area(self, start: int | None, length: int | None) -> tuple[int, int]:
        """Return the sectors of a new logical partition, which follows its own record."""
        assert self._container is not None
        free = self._free(self._container.start, min(self._container.end, self._end), self._logical_spans())
        is_first = not self._logical()
        room = 1 if start is not None or is_first else self._align
        areas = [(first + room, end) for first, end in free.areas if first + room < end]
        free.areas = areas
        return free.choose(start, length)

    def _gap_before(self, sector: int) -> int:
        """The first sector of the free area that ends at the start of a new partition."""
        assert self._container is not None
        ends = [span.end for span in self._logical_spans() if span.end <= sector]
        return max([self._container.start, *ends])

    def _logical_spans(self) -> list[Span]:
        spans = [Span(record.sector, record.sector + 1, "a record") for record in self._records]
        return spans + [Span(record.start, record.end, "a logical partition") for record in self._logical()]

    def _delete_logical(self, number: int) -> None:
        record = self._record_of(number)
        index = self._records.index(record)
        if index == 0:  # the record at the start of the extended partition stays
            self._change_sector(record.sector, {0: _UNUSED})
            return
        following = self._records[index + 1 :]
        if following:
            self._link(self._records[index - 1], following[0].sector, following[0].end or following[0].sector + 1)
        else:
            self._change_sector(self._records[index - 1].sector, {1: _UNUSED})

    def _link(self, record: _Record, sector: int, end: int) -> None:
        """Let record point to the one in sector, whose area ends before end."""
        assert self._container is not None
        start = sector - self._container.start
        self._change_sector(record.sector, {1: _entry(_LINK, start, start + end - sector, bootable=False)})

    def _write_record(self, sector: int, logical: dict[str, int | bytes], link: dict[str, int | bytes]) -> None:
        contents = bytearray(self.sector_size)
        MBR.put(contents, {"Signature": MBR_SIGNATURE})
        put_mbr_entry(contents, 0, **logical)
        put_mbr_entry(contents, 1, **link)
        self.disk.write(sector * self.sector_size, contents)
        self.disk.flush()

    def _change_sector(self, sector: int, changes: dict[int, dict[str, int | bytes]]) -> None:
        contents = bytearray(read_bytes(self.disk, sector * self.sector_size, self.sector_size))
        for slot, fields in changes.items():
            put_mbr_entry(contents, slot, **fields)
        self.disk.write(sector * self.sector_size, contents)
        self.disk.flush()
        self._read()

    def _free(self, first: int, end: int, taken: list[Span]) -> FreeSpace:
        return FreeSpace(self.disk.name, first, end, taken, align=self._align, sector_size=self.sector_size)

    @property
    def _align(self) -> int:
        return ALIGNMENT // self.sector_size


def _entry(kind: int, start: int, end: int, *, bootable: bool) -> dict[str, int | bytes]:
    return {
        "BootIndicator": BOOTABLE if bootable else 0,
        "StartingCHS": _BEYOND_CHS,
        "OSType": kind,
        "EndingCHS": _BEYOND_CHS,
        "StartingLBA": start,
        "SizeInLBA": end - start,
    }


def _refuse_gpt_fields(disk: Disk, change: PartitionChange) -> None:
    if change.name is not None or change.uuid is not None:
        raise PartitionError(f"{disk.name}: has an MBR, whose partitions have no names and UUIDs")
