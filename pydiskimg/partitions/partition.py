# SPDX-License-Identifier: MIT
"""A partition of a disk, or the disk as a whole, and the signs that a disk has a partition table."""

from __future__ import annotations

from pydiskimg.startup import ValueObject

MBR_SIGNATURE = b"\x55\xaa"
_AT = 510  # in the first sector of a disk, and in an extended boot record

# A GPT begins in the second sector, so its offset shows for which of these sector sizes it was made.
SECTOR_SIZES = (512, 1024, 2048, 4096)


def has_mbr(sector: bytes | bytearray) -> bool:
    """True when the first sector of a disk, or an extended boot record, has its signature; False for an empty one."""
    return sector.startswith(MBR_SIGNATURE, _AT)


class Partition(ValueObject):
    """A partition that was found: start and length are bytes and lie inside the disk.

    number is the kernel's (1 to 4 primary, from 5 logical; GPT: the entry). type is the MBR's byte as 0x83 or the
    GPT's GUID in capitals. uuid is the kernel's PARTUUID: the GPT's own GUID of the partition, or the MBR's disk
    signature and the number; empty where there is no table. name is the GPT's name of the partition, arbitrary text.
    bootable is the flag of an MBR, or the GPT's attribute for a BIOS. Two partitions are equal if they are the same
    part of a disk, even if uuid, name and bootable differ.
    """

    __slots__ = ("bootable", "length", "name", "number", "start", "type", "uuid")

    def __init__(
        self,
        number: int,
        start: int,
        length: int,
        type: str,  # noqa: A002
        uuid: str = "",
        name: str = "",
        *,
        bootable: bool = False,
    ) -> None:
        self.number = number
        self.start = start
        self.length = length
        self.type = type
        self.uuid = uuid
        self.name = name
        self.bootable = bootable

    @property
    def location(self) -> str:
        """The partition's name in messages."""
        return f"partition {self.number}" if self.number else "the whole disk"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Partition) and self._part() == other._part()

    def __hash__(self) -> int:
        return hash(self._part())

    def _part(self) -> tuple[int, int, int, str]:
        return self.number, self.start, self.length, self.type
