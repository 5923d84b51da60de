# SPDX-License-Identifier: MIT
"""A partition table that can be changed: the interface that MBR and GPT share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydiskimg.errors import PartitionError
from pydiskimg.partitions.partition import Partition
from pydiskimg.protocols import Disk
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.partitions.types import Label


@dataclass(frozen=True, slots=True)
class PartitionChange:
    """The attributes to set on a partition; None leaves one unchanged, or takes the default for a new partition.

    type is a name for type_named(); name and uuid are for a GPT only. bootable is the flag of an MBR, and the
    attribute "legacy BIOS bootable" of a GPT.
    """

    type: str | None = None
    name: str | None = None
    uuid: str | None = None
    bootable: bool | None = None


class ChangedTable(Protocol):
    """The table of a disk. Each change is written at once, durably; an interruption leaves the old or the new table.

    Raises PartitionError if the table cannot hold the change, DoesNotFitError if there is no room, StorageError.
    """

    label: Label
    disk: Disk
    sector_size: int

    @property
    def partitions(self) -> Sequence[Partition]:
        """The partitions in the order of their numbers, including an extended one."""

    def add(
        self, start: int | None, length: int | None, change: PartitionChange, *, number: int | None, logical: bool
    ) -> int:
        """Add a partition at start, of length (bytes; None: the first or all free space); return its number.

        The contents of its sectors are not changed.
        """

    def delete(self, *numbers: int) -> None:
        """Remove partitions from the table, all or none; their contents stay. Logical ones after them move up.

        Of an MBR, an interruption may leave some of several logical ones.
        """

    def set(self, number: int, change: PartitionChange) -> None:
        """Change the attributes of a partition."""

    def set_length(self, number: int, length: int) -> None:
        """Shorten a partition to length (bytes). The extended partition around a logical one keeps its size."""

    def moved_to(self, end: int) -> None:
        """Let the table be that of a disk of end bytes, durably; an extended partition that reaches further is cut.

        Raises PartitionError if other partitions reach further.
        """

    @property
    def end_of_disk(self) -> int:
        """The size in bytes that the disk needs at least, for all partitions and the table."""


def in_sectors(table: ChangedTable, length: int | None, what: str) -> int | None:
    """Return bytes as sectors. Raises PartitionError if they are not a positive number of whole sectors."""
    if length is None:
        return None
    if length % table.sector_size or length <= 0:
        raise PartitionError(
            f"{table.disk.name}: the {what} of a partition is {length} bytes; expected a multiple of a sector "
            f"({table.sector_size} bytes)"
        )
    return length // table.sector_size


def no_partition(table: ChangedTable, number: int) -> PartitionError:
    """Return the error for a partition number that does not exist."""
    found = ", ".join(str(partition.number) for partition in table.partitions) or "none"
    return PartitionError(f"{table.disk.name}: has no partition {number}; found: {found}")
