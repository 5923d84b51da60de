# SPDX-License-Identifier: MIT
"""The changes that growing a partition makes to the disk, decided before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydiskimg.errors import DiskImageError, PartitionError
from pydiskimg.partitions.partition import Partition
from pydiskimg.protocols import Disk
from pydiskimg.units import MIB

# Ends are aligned as starts are, so that programs which copy or mirror the disk in large pieces meet only whole ones.
ALIGNMENT = MIB


class NothingToGrowError(DiskImageError):
    """The disk is valid and nothing on it can grow; the text is the reason, after "nothing to grow: "."""


@dataclass(frozen=True, slots=True)
class PartitionGrowth:
    """The last partition of a disk, the length (bytes) it can have, and the writes that give it that length.

    length is never below partition.length. writes are (byte offset, contents) in the order in which they must become
    durable: before the first, after each, and when one of them is interrupted between two sectors, the disk has a valid
    table, the old or the new one. limited_by says why the partition cannot reach the end of the disk, if so.
    """

    partition: Partition
    length: int
    writes: tuple[tuple[int, bytes], ...]
    limited_by: str = ""

    def write(self, disk: Disk) -> None:
        """Make the changes, each durable before the next. Raises StorageError."""
        for offset, contents in self.writes:
            disk.write(offset, contents)
            disk.flush()


@dataclass(frozen=True, slots=True)
class Span:
    """Sectors from start to before end, and what they contain, for messages."""

    start: int
    end: int
    what: str


def refuse_overlaps(name: str, spans: Iterable[Span]) -> None:
    """Raise PartitionError, with the name of the disk, when two spans share a sector or one is empty."""
    before = Span(0, 0, "the start of the disk")
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if span.start >= span.end or span.start < before.end:
            raise PartitionError(
                f"{name}: {span.what} (sectors {span.start} to {span.end}) overlaps {before.what} (to {before.end}); "
                "the partition table is damaged, nothing was changed"
            )
        before = span


def aligned_end(limit: int, sector_size: int) -> int:
    """Return the last sector boundary up to limit (sectors) where a partition may end."""
    return limit * sector_size // ALIGNMENT * ALIGNMENT // sector_size
