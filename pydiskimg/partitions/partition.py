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
    """A partition of a disk; start and length are bytes and lie inside the disk.

    number is the kernel's: 1 to 4 primary and from 5 logical in an MBR, the entry of a GPT; 0 stands for the whole
    disk. type is the byte of an MBR ("0x83") or the GUID of a GPT in capitals. uuid is the kernel's PARTUUID, empty
    where there is no table. name is the GPT's name of the partition, which may be any text. bootable is the flag of an
    MBR, or the attribute of a GPT for a BIOS. Two partitions are equal when number, start, length and type are.

    >>> from pydiskimg import open_image, read_partition_table
    >>> with open_image("disk.raw") as source:
    ...     (root,) = read_partition_table(source)
    >>> root.number, root.start, root.length, root.type, root.bootable
    (1, 1048576, 66060288, '0x83', True)
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
