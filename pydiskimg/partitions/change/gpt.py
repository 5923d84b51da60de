# SPDX-License-Identifier: MIT
"""Change a GPT (UEFI 2.10, section 5.3). It is changed only if its copy at the start of the disk is sound."""

from __future__ import annotations

from uuid import UUID, uuid4

from pydiskimg.errors import DiskImageError, PartitionError
from pydiskimg.partitions.change.free import FreeSpace
from pydiskimg.partitions.change.table import ChangedTable, PartitionChange, in_sectors, no_partition
from pydiskimg.partitions.grow_gpt import partitions_in, protective_mbr, read_array, read_header, table_writes
from pydiskimg.partitions.growth_plan import ALIGNMENT, NothingToGrowError, Span
from pydiskimg.partitions.layout import BIOS_BOOTABLE, GPT_ENTRY
from pydiskimg.partitions.partition import Partition
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.partitions.types import type_named
from pydiskimg.protocols import Disk
from pydiskimg.regions.region import Region

_SPAN = ("StartingLBA", "EndingLBA")
_NAME_UNITS = GPT_ENTRY.slice_of("PartitionName").stop - GPT_ENTRY.slice_of("PartitionName").start


class ChangedGpt(ChangedTable):
    """The GPT of a disk, read and written with sectors of sector_size bytes; see ChangedTable."""

    label = "gpt"

    def __init__(self, disk: Disk, sector_size: int) -> None:
        """Raises PartitionError for a GPT that is damaged, or shares the disk with partitions of an MBR."""
        self.disk = disk
        self.sector_size = sector_size
        try:
            protective_mbr(disk, sector_size)
            self._header = read_header(disk, sector_size)
        except NothingToGrowError as error:
            raise PartitionError(f"{disk.name}: the GPT is not changed: {error}") from error
        self._array = bytearray(read_array(disk, self._header, sector_size))
        partitions_in(disk, self._header, self._array, sector_size)
        self._limit = disk.size // sector_size - 1 - self._header.array_sectors(sector_size)

    @property
    def partitions(self) -> list[Partition]:
        return read_partition_table(self.disk, sector_size=self.sector_size, backup=False)

    def add(
        self, start: int | None, length: int | None, change: PartitionChange, *, number: int | None, logical: bool
    ) -> int:
        if logical:
            raise PartitionError(
                f"{self.disk.name}: has a GPT, which does not have logical partitions; leave out --logical"
            )
        number = self._free_number() if number is None else number
        if not 1 <= number <= self._header.count or self._is_used(number):
            taken = "is taken" if 1 <= number <= self._header.count else f"is not one of 1 to {self._header.count}"
            raise PartitionError(f"{self.disk.name}: the number {number} {taken}")
        size = self.sector_size
        taken_spans = [
            Span(part.start // size, (part.start + part.length) // size, f"partition {part.number}")
            for part in self.partitions
        ]
        end = min(self._limit, self.disk.size // size)
        free = FreeSpace(
            self.disk.name, self._header.first_usable, end, taken_spans, align=ALIGNMENT // size, sector_size=size
        )
        first, end = free.choose(in_sectors(self, start, "start"), in_sectors(self, length, "size"))
        guid = type_named(change.type or "linux", "gpt")
        self._put(
            number,
            PartitionTypeGUID=UUID(guid).bytes_le,
            UniquePartitionGUID=self._unique(number, change.uuid) if change.uuid else uuid4().bytes_le,
            StartingLBA=first,
            EndingLBA=end - 1,
            Attributes=BIOS_BOOTABLE if change.bootable else 0,
            PartitionName=self._name(change.name or ""),
        )
        self._write()
        return number

    def delete(self, *numbers: int) -> None:
        for number in numbers:
            self._require(number)
        for number in numbers:
            at = (number - 1) * GPT_ENTRY.size
            self._array[at : at + GPT_ENTRY.size] = bytes(GPT_ENTRY.size)
        self._write()

    def set(self, number: int, change: PartitionChange) -> None:
        self._require(number)
        fields: dict[str, int | bytes] = {}
        if change.type is not None:
            fields["PartitionTypeGUID"] = UUID(type_named(change.type, "gpt")).bytes_le
        if change.uuid is not None:
            fields["UniquePartitionGUID"] = self._unique(number, change.uuid)
        if change.name is not None:
            fields["PartitionName"] = self._name(change.name)
        if change.bootable is not None:
            attributes = GPT_ENTRY.unpack(self._array, (number - 1) * GPT_ENTRY.size)["Attributes"] & ~BIOS_BOOTABLE
            fields["Attributes"] = attributes | (BIOS_BOOTABLE if change.bootable else 0)
        self._put(number, **fields)
        self._write()

    def set_length(self, number: int, length: int) -> None:
        self._require(number)
        sectors = in_sectors(self, length, "size")
        first, last = (GPT_ENTRY.unpack(self._array, (number - 1) * GPT_ENTRY.size)[name] for name in _SPAN)
        if sectors is None or first + sectors - 1 > last:
            raise PartitionError(
                f"{self.disk.name}: partition {number} cannot shrink to {length} bytes; it has no more than that"
            )
        self._put(number, EndingLBA=first + sectors - 1)
        self._write()

    @property
    def end_of_disk(self) -> int:
        size = self.sector_size
        ends = [part.start + part.length for part in self.partitions]
        end = max([self._header.first_usable * size, *ends])
        return end + (1 + self._header.array_sectors(size)) * size

    def moved_to(self, end: int) -> None:
        """Move the backup to where a disk of end bytes has it; the disk may be larger. Raises PartitionError."""
        if end % self.sector_size or not self.end_of_disk <= end <= self.disk.size:
            raise PartitionError(f"{self.disk.name}: its GPT needs a disk of {self.end_of_disk} bytes, more than {end}")
        disk = Region(self.disk, 0, end, name=self.disk.name)
        limit = end // self.sector_size - 1 - self._header.array_sectors(self.sector_size)
        writes = table_writes(disk, self.sector_size, self._header, bytes(self._array), limit)
        for offset, contents in (*writes, *protective_mbr(disk, self.sector_size, is_cut=True)):
            disk.write(offset, contents)
            disk.flush()

    def _require(self, number: int) -> None:
        if not 1 <= number <= self._header.count or not self._is_used(number):
            raise no_partition(self, number)

    def _is_used(self, number: int) -> bool:
        at = (number - 1) * GPT_ENTRY.size
        return any(self._array[at : at + 16])

    def _free_number(self) -> int:
        for number in range(1, self._header.count + 1):
            if not self._is_used(number):
                return number
        raise PartitionError(f"{self.disk.name}: all {self._header.count} entries of the GPT are taken")

    def _unique(self, number: int, uuid: str) -> bytes:
        """Return the UUID for partition number; PARTUUID= and by-partuuid would name any of two with the same one."""
        for part in self.partitions:
            if part.number != number and part.uuid and UUID(part.uuid) == UUID(uuid):
                raise PartitionError(
                    f"{self.disk.name}: the UUID {uuid} is that of partition {part.number}; each one needs its own"
                )
        return UUID(uuid).bytes_le

    def _put(self, number: int, **fields: int | bytes) -> None:
        GPT_ENTRY.put(self._array, fields, (number - 1) * GPT_ENTRY.size)

    def _name(self, name: str) -> bytes:
        try:
            encoded = name.encode("utf-16-le")
        except UnicodeEncodeError:
            raise PartitionError(f"{self.disk.name}: the name of a partition is not text") from None
        if len(encoded) > _NAME_UNITS:
            raise PartitionError(
                f"{self.disk.name}: the name of a partition has {len(encoded) // 2} UTF-16 units, expected at most "
                f"{_NAME_UNITS // 2}"
            )
        return encoded.ljust(_NAME_UNITS, b"\0")

    def _write(self) -> None:
        """Write the entries in the array; the header in memory stays that of the disk."""
        writes = table_writes(self.disk, self.sector_size, self._header, bytes(self._array), self._limit)
        for offset, contents in (*protective_mbr(self.disk, self.sector_size), *writes):
            self.disk.write(offset, contents)
            self.disk.flush()
        try:
            self._header = read_header(self.disk, self.sector_size)
        except DiskImageError as error:  # the disk does not keep what is written
            raise PartitionError(f"{self.disk.name}: the GPT that was written cannot be read: {error}") from error
