# SPDX-License-Identifier: MIT
"""A disk's partitions, or the disk itself if it has no table, each with its content."""

from __future__ import annotations

from pydiskimg.disks.region import SourceRegion
from pydiskimg.errors import FileSystemError, PartitionError
from pydiskimg.fs.probe import FileSystemKind, probe
from pydiskimg.partitions.partition import SECTOR_SIZES, Partition, has_mbr
from pydiskimg.protocols import Disk, Source, read_bytes
from pydiskimg.startup import TYPE_CHECKING, ValueObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

TableReader: TypeAlias = "Callable[[Source, int], Sequence[Partition]]"
"""Called with a disk and the bytes of a sector; returns none if the disk has no table. Raises PartitionError."""


class Volume(ValueObject):
    """A partition, or the whole disk as number 0, and its content (None: nothing known).

    options are mount options: the subvolume of a btrfs.
    """

    __slots__ = ("content", "options", "partition")

    def __init__(self, partition: Partition, content: FileSystemKind | None, options: str = "") -> None:
        self.partition = partition
        self.content = content
        self.options = options

    @property
    def location(self) -> str:
        return self.partition.location

    def __str__(self) -> str:
        return f"{self.location} ({self.content.type if self.content else 'nothing known'})"

    def region(self, source: Source) -> SourceRegion:
        """Return its content, given the disk that it is on."""
        name = f"{source.name}, {self.location}"
        return SourceRegion(source, self.partition.start, self.partition.length, name=name)


def find_volumes(disk: Disk) -> list[Volume]:
    """Return the partitions of the disk with their contents, or the disk itself if it has no table.

    An image may have been made for sectors of another size than this disk's, which is tried first: the right size is
    the one that leads to known contents. An unclear volume is logged, and its content is None. Raises PartitionError
    when the table cannot be read with any size.
    """
    return _with_content(disk, (disk.sector_size, *SECTOR_SIZES))


def volumes_of(source: Source, tell: Callable[[str], object]) -> list[Volume]:
    """Return the volumes of a source that is only read, with the sector size that leads to known contents.

    If there is no such size, the first is used with which the table can be read. tell and errors are as for
    volume_readings() and find_volumes().
    """
    return _with_content(source, SECTOR_SIZES, tell)


def _with_content(
    source: Source, sector_sizes: Iterable[int], tell: Callable[[str], object] | None = None
) -> list[Volume]:
    """Return the first reading with known contents, otherwise the first one; arguments as for volume_readings()."""
    problems: list[PartitionError] = []
    first = None
    for found in volume_readings(source, sector_sizes, problems, tell=tell):
        if any(volume.content for volume in found):
            return found
        first = first or found
    if first is None:
        raise problems[0]
    return first


def volume_readings(
    source: Source,
    sector_sizes: Iterable[int],
    problems: list[PartitionError],
    *,
    read: TableReader | None = None,
    tell: Callable[[str], object] | None = None,
) -> Iterator[list[Volume]]:
    """Yield for each sector size (bytes) the volumes in the table; equal lists are yielded once.

    A size with which the table cannot be read is skipped, and its error is added to problems. read reads the table;
    tell is called with a sentence on each volume whose contents are unclear; by default a warning is logged.
    """
    seen = set()
    for sector_size in dict.fromkeys(sector_sizes):
        try:
            partitions = tuple((read or _read)(source, sector_size))
        except PartitionError as error:
            problems.append(error)
            continue
        if partitions not in seen:
            seen.add(partitions)
            yield [probed(source, part, tell) for part in partitions or (Partition(0, 0, source.size, ""),)]


def _read(source: Source, sector_size: int) -> Sequence[Partition]:
    if not has_mbr(read_bytes(source, 0, min(source.size, SECTOR_SIZES[0]))):
        return ()
    # imported here: many file systems are alone on their disk
    from pydiskimg.partitions.read import read_partition_table

    return read_partition_table(source, sector_size=sector_size)


def probed(source: Source, partition: Partition, tell: Callable[[str], object] | None) -> Volume:
    """Return a partition with its content; tell is as for volume_readings()."""
    volume = Volume(partition, None)
    try:
        return Volume(partition, probe(volume.region(source)))
    except FileSystemError as error:  # the wanted content may be on another partition
        if tell is None:
            import logging  # imported here: importing it takes longer than reading a small file

            logging.getLogger(__name__).warning("%s", error)
        else:
            tell(str(error))
        return volume
