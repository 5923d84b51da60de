# SPDX-License-Identifier: MIT
"""A partition table that is changed: what MBR and GPT have in common."""

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
    """What a partition is to have; None leaves it as it is, or in a new one as is usual.

    type is as type_named() takes it; name and uuid are those of a GPT. bootable is the flag of an MBR, and the
    attribute "legacy BIOS bootable" of a GPT.
    """

    type: str | None = None
    name: str | None = None
    uuid: str | None = None
    bootable: bool | None = None


class ChangedTable(Protocol):
    """The table of a disk. Each change is written at once, durably; an interruption leaves the old or the new table.

    Raises PartitionError for what the table cannot hold, DoesNotFitError where there is no room, StorageError.
    """

    label: Label
    disk: Disk
    sector_size: int

    @property
    def partitions(self) -> Sequence[Partition]:
        """The partitions in the order of their numbers, an extended one included."""

    def add(
        self, start: int | None, length: int | None, change: PartitionChange, *, number: int | None, logical: bool
    ) -> int:
        """Add a partition at start, of length (both bytes; None: where there is room, all of it); return its number.

        What is in the sectors that it gets stays as it is.
        """

    def delete(self, number: int) -> None:
        """Remove a partition from the table; its contents stay. Logical ones after it get numbers one lower."""

    def set(self, number: int, change: PartitionChange) -> None:
        """Change what the table says of a partition."""

    def set_length(self, number: int, length: int) -> None:
        """Let a partition end earlier: length is bytes. An extended one, and what a logical one is in, stay."""

    @property
    def end_of_disk(self) -> int:
        """How many bytes the disk needs at least, for all partitions and the table."""


def in_sectors(table: ChangedTable, length: int | None, what: str) -> int | None:
    """Return bytes as sectors. Raises PartitionError where they are not whole ones, or none."""
    if length is None:
        return None
    if length % table.sector_size or length <= 0:
        raise PartitionError(
            f"{table.disk.name}: the {what} of a partition is {length} bytes; expected a multiple of a sector "
            f"({table.sector_size} bytes)"
        )
    return length // table.sector_size


def no_partition(table: ChangedTable, number: int) -> PartitionError:
    """Return the error for a number that no partition has."""
    found = ", ".join(str(partition.number) for partition in table.partitions) or "none"
    return PartitionError(f"{table.disk.name}: has no partition {number}; found: {found}")
